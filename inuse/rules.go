package inuse

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// The rules for two sockets are in internal/semantics. This file applies them without
// knowing the options of one of the two, which no system shows. classes supposes every set
// of options that a holder can have, and removes those that the other sockets contradict.
// judge asks the rules what the rest mean for the bind. What all agree on is certain.
// Otherwise condition puts the difference into words.

// A bind is a bind that was asked for.
type bind struct {
	target
	system    semantics.System
	user      int
	listens   bool         // for a listener, not for a dialed socket
	multicast bool         // the address of the call is a multicast address
	refused   bool         // the kernel has refused it
	asked     reuse.Config // of the call
}

// linux also counts Android, whose kernel it is.
func (b *bind) linux() bool { return b.system.Name() == "linux" || b.system.Name() == "android" }

// options returns the options that a socket has when it binds: those that package net
// sets, changed by a Config.
func (b *bind) options(c reuse.Config) semantics.Options {
	var all semantics.Options
	has := func(o semantics.Options) bool { return b.system.OptionName(o) != "" }
	set := func(o semantics.Options, s reuse.Setting) {
		if s == reuse.Off {
			all &^= o
		} else if s != reuse.Default && has(o) {
			all |= o
		}
	}
	listener := b.listens && b.proto == semantics.TCP && !strings.HasPrefix(b.system.Name(), "windows")
	if b.multicast || listener {
		set(semantics.Addr, reuse.On)
	}
	if b.multicast && slices.Contains([]string{"freebsd", "freebsd-14", "openbsd", "netbsd", "dragonfly", "darwin", "ios", "aix"}, b.system.Name()) {
		set(semantics.Port, reuse.On)
	}
	set(semantics.Addr, c.Addr)
	set(semantics.Port, c.Port)
	if has(semantics.LB) { // the same option as Port, except on FreeBSD
		set(semantics.LB, c.PortLB)
	} else {
		set(semantics.Port, c.PortLB)
	}
	asks := func(s reuse.Setting) bool { return s == reuse.On || s == reuse.Prefer }
	if asks(c.PortLB) && b.system.Name() == semantics.Solaris114 {
		set(semantics.Addr, reuse.Off)
	}
	if asks(c.Exclusive) {
		if !listener {
			set(semantics.Addr, reuse.Off)
		}
		set(semantics.Port, reuse.Off)
		set(semantics.LB, reuse.Off)
		set(semantics.Excl, reuse.On)
	}
	return all
}

// answer returns the result of the bind with a Config alongside a holder.
func (b *bind) answer(first semantics.Binding, c reuse.Config) semantics.Answer {
	second := semantics.Binding{
		Proto: b.proto, State: semantics.Bound,
		Addr: b.local.Addr().WithZone(""), V6Only: b.v6only, Port: b.local.Port(),
		Options: b.options(c), User: b.user,
	}
	if b.listens && b.proto == semantics.TCP {
		second.State = semantics.Listening
	}
	return b.system.Bind(first, second)
}

// A class is a number of holders that the rules do not tell apart.
type class struct {
	Holder                      // the first
	count   int                 // how many there are
	guesses []semantics.Binding // what they may be
}

// classes groups the holders, and supposes what those of each class may be.
func (b *bind) classes(holders []Holder) []*class {
	kind := func(h Holder) Holder {
		h.Remote, h.PID, h.Command = netip.AddrPort{}, 0, ""
		return h
	}
	var list []*class
	for _, h := range holders {
		if h.queued() && slices.ContainsFunc(holders, h.comesFrom) {
			continue // what is true of the listener is true of its queue
		}
		if i := slices.IndexFunc(list, func(c *class) bool { return kind(c.Holder) == kind(h) }); i >= 0 {
			list[i].count++
			continue
		}
		list = append(list, &class{Holder: h, count: 1, guesses: b.guesses(h)})
	}
	for _, c := range list {
		for _, other := range list {
			if (c != other || c.count > 1) && b.agree(c.Holder, other.Holder) {
				c.guesses = slices.DeleteFunc(c.guesses, func(g semantics.Binding) bool {
					return !slices.ContainsFunc(other.guesses, func(o semantics.Binding) bool { return b.system.Bind(o, g).OK() })
				})
			}
		}
	}
	// If all classes but one would have admitted the bind, that one refused it, and is
	// nothing that would have admitted it. This is wrong if the socket that refused is gone.
	doubtful := slices.DeleteFunc(slices.Clone(list), func(c *class) bool {
		_, bad, known := b.split(c, b.asked)
		return len(bad) == 0 && known
	})
	if b.refused && len(doubtful) == 1 {
		doubtful[0].guesses = slices.DeleteFunc(doubtful[0].guesses, func(g semantics.Binding) bool { return b.answer(g, b.asked).OK() })
	}
	return list
}

// agree reports whether each of two sockets admitted the other one. That both are there
// does not show it, because a third one may have brought them together. For a bind with
// SO_REUSEPORT Linux asks on UDP at most one such socket of the same user. On TCP it asks
// none if the socket that was bound last has the same address, where an IPv6-only or an
// IPv4 wildcard counts as a dual-stack one, and devices do not count. A TCP socket is
// compared again when it listens. So agree is about listeners of one kind without a device.
func (b *bind) agree(x, y Holder) bool {
	eligible := func(h Holder) bool { return h.State == listen && h.Device == "" && h.Local.Addr().Zone() == "" }
	return b.linux() && b.proto == semantics.TCP && eligible(x) && eligible(y) && x.UID == y.UID &&
		x.target().dual() == y.target().dual() && x.target().overlaps(y.Local.Addr(), y.target().v6only)
}

// comesFrom reports whether a connection may be in the queue of a listener, and so have its
// user and options. The user -1 of a connection without a process may be root.
func (h Holder) comesFrom(l Holder) bool {
	return l.State == listen && max(h.UID, 0) == max(l.UID, 0) && l.target().overlaps(h.Local.Addr(), true)
}

// guesses returns what a holder may be.
func (b *bind) guesses(h Holder) (list []semantics.Binding) {
	users, only := []int{h.UID}, []bool{h.target().v6only}
	switch {
	case h.outside:
		users = []int{b.user + 1}
	case h.UID < 0:
		users = []int{b.user, b.user + 1}
	}
	if h.vague {
		only = []bool{false, true}
	}
	state := semantics.Established
	switch {
	case h.State == listen:
		state = semantics.Listening
	case h.State == bound, h.State == connected && !b.linux():
		state = semantics.Bound
	case h.State == timeWait:
		state = semantics.TimeWait
	case h.State == finWait2 && h.orphan: // Linux keeps it as it keeps TIME_WAIT
		state = semantics.FinWait2
	}
	for _, options := range b.system.Subsets() {
		if options.Has(semantics.Excl) && options != semantics.Excl {
			continue // Windows refuses that, and elsewhere it is the same as without
		}
		for _, user := range users {
			for _, v6only := range only {
				list = append(list, semantics.Binding{
					Proto: b.proto, State: state, Addr: h.Local.Addr().WithZone(""), V6Only: v6only,
					Options: options, User: user, Port: h.Local.Port(),
				})
			}
		}
	}
	return list
}

// split divides what a holder may be into what admits the bind and what refuses it. It
// leaves out a guess that the holder's own bind contradicts. known is false if the rules do
// not decide on one.
func (b *bind) split(h *class, c reuse.Config) (good, bad []semantics.Binding, known bool) {
	known = true
	for _, g := range h.guesses {
		switch a := b.answer(g, c); {
		case a.Evidence.Kind == semantics.Unknown:
			known = false
		case a.OK():
			good = append(good, g)
		case !a.First:
			bad = append(bad, g)
		}
	}
	return good, bad, known
}

// A verdict is the result of the bind with a Config.
type verdict struct {
	never   bool     // it fails, whatever the holders have set
	refuse  []*class // those that refuse it then
	unknown bool     // the rules do not decide
	depends []string // what the holders must have set; none: it succeeds
}

// sure reports whether the bind succeeds.
func (v verdict) sure() bool { return !v.never && !v.unknown && len(v.depends) == 0 }

// judge returns the verdict on the bind with a Config.
func (b *bind) judge(list []*class, c reuse.Config) (v verdict) {
	for _, h := range list {
		good, bad, known := b.split(h, c)
		v.unknown = v.unknown || !known
		switch {
		case len(bad) == 0:
		case len(good) > 0:
			if need := h.subject() + " " + b.condition(good, bad); !slices.Contains(v.depends, need) {
				v.depends = append(v.depends, need)
			}
		case known:
			v.refuse = append(v.refuse, h)
		}
	}
	v.never = len(v.refuse) > 0
	switch same := b.refused && b.options(c) == b.options(b.asked); {
	case same && (v.never || len(v.depends) > 0):
		v.never = true // as was seen
	case v.never && b.asksOne(list, c):
		v.never, v.unknown = false, true
	}
	return v
}

// asksOne reports whether Linux may admit a bind that a holder refuses, because it asks
// another holder only; see agree.
func (b *bind) asksOne(list []*class, c reuse.Config) bool {
	return b.linux() && b.options(c).Has(semantics.Port) && slices.ContainsFunc(list, func(c *class) bool {
		return (b.proto == semantics.UDP || b.dual() && c.Local.Addr().IsUnspecified()) &&
			slices.ContainsFunc(c.guesses, func(g semantics.Binding) bool {
				return g.Options.Has(semantics.Port) && g.User == b.user
			})
	})
}

// remembers reports whether a socket that is closed may have left what admits the bind. The
// kernel remembers the address of the socket that was bound last, as long as the port has
// any socket; see agree.
func (b *bind) remembers() bool {
	return b.linux() && b.proto == semantics.TCP && b.dual() && !(b.refused && b.options(b.asked).Has(semantics.Port))
}

// condition returns what the good guesses have in common that no bad one has: the shortest
// conjunctions of facts that together hold for all of the good ones.
func (b *bind) condition(good, bad []semantics.Binding) string {
	type fact struct {
		text  string
		holds func(semantics.Binding) bool
	}
	facts := []fact{
		{"made an IPv6-only socket", func(g semantics.Binding) bool { return g.V6Only && b.local.Addr().Is4() }},
		{"belongs to your user", func(g semantics.Binding) bool { return g.User == b.user }},
	}
	for _, o := range b.system.Options().List() {
		name := b.system.OptionName(o)
		facts = append(facts, fact{"set " + name, func(g semantics.Binding) bool { return g.Options.Has(o) }},
			fact{"did not set " + name, func(g semantics.Binding) bool { return !g.Options.Has(o) }})
	}
	var ways []string
	for size := range len(facts) {
		for set := range 1 << len(facts) {
			if bits.OnesCount(uint(set)) != size+1 {
				continue
			}
			var texts []string
			for i, f := range slices.Backward(facts) {
				if set>>i&1 != 0 {
					texts = append(texts, f.text)
				}
			}
			all := func(g semantics.Binding) bool {
				return !slices.ContainsFunc(facts, func(f fact) bool { return slices.Contains(texts, f.text) && !f.holds(g) })
			}
			if slices.ContainsFunc(good, all) && !slices.ContainsFunc(bad, all) {
				good = slices.DeleteFunc(slices.Clone(good), all)
				ways = append(ways, strings.Join(texts, " and "))
			}
		}
	}
	return strings.Join(ways, " or ")
}

// culprit returns the holder that refuses the asked bind, or may refuse it, and the rule. A
// holder that refuses every Config comes first, then one that certainly refuses this one.
// Of several rules it returns the one for a holder that shares the most, because that one
// then refuses all.
func (b *bind) culprit(list []*class, verdicts []verdict) (found *class, why semantics.Answer) {
	best := 0
	for _, h := range list {
		good, bad, known := b.split(h, b.asked)
		rank := 1
		switch {
		case len(bad) == 0:
			continue
		case !slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.never || !slices.Contains(v.refuse, h) }):
			rank = 3
		case len(good) == 0 && known:
			rank = 2
		}
		if rank > best {
			shares := func(g semantics.Binding) int { return int(g.Options &^ semantics.Excl) }
			most := slices.MaxFunc(bad, func(x, y semantics.Binding) int { return shares(x) - shares(y) })
			found, why, best = h, b.answer(most, b.asked), rank
		}
	}
	return found, why
}

// advise returns which Configs make the bind succeed, the simplest first, and the verdict
// on each Config that gives the socket other options here. The first is that on b.asked.
func (b *bind) advise(list []*class) (advice []string, verdicts []verdict) {
	seen := map[semantics.Options]bool{}
	var before []string
	unknown := ""
	for _, c := range []reuse.Config{b.asked, {}, {Port: reuse.On}, {Addr: reuse.On}, {PortLB: reuse.On}, {Addr: reuse.On, Port: reuse.On}, {Exclusive: reuse.On}} {
		c.DeferPort = b.asked.DeferPort
		options := b.options(c)
		if seen[options] {
			continue
		}
		seen[options] = true
		v := b.judge(list, c)
		verdicts = append(verdicts, v)
		works, warning := literal(c)+" works", "."
		if c.Addr == reuse.On && b.proto == semantics.UDP && b.linux() {
			warning = ". Then sockets of any user may share the port."
		}
		switch need := strings.Join(v.depends, ", and "); {
		case v.never:
		case v.unknown:
			unknown = cmp.Or(unknown, literal(c))
		case v.sure() && c == b.asked:
			return []string{"Try again: nothing that is visible refuses " + literal(c) + " now."}, verdicts
		case v.sure():
			return []string{works + warning}, verdicts
		case !slices.Contains(before, need): // else a simpler Config does the same
			before = append(before, need)
			if n := len(v.depends) - 3; n > 0 {
				need = strings.Join(v.depends[:3], ", and ") + fmt.Sprintf(", and so for %d more", n)
			}
			advice = append(advice, works+" if "+need+warning)
		}
	}
	if unknown != "" && b.linux() {
		advice = append(advice, unknown+" may work: Linux can admit SO_REUSEPORT alongside one socket of your user without asking the others.")
	}
	return advice, verdicts
}

// admits reports whether the asked Config is sure to work on another address, or
// alongside other holders, and package reuse accepts it there.
func (b *bind) admits(ctx context.Context, list []*class, ip netip.Addr, v6only bool) bool {
	other := *b
	other.target, other.refused = target{b.proto, netip.AddrPortFrom(ip, b.local.Port()), v6only}, false
	return other.judge(list, b.asked).sure() &&
		setOptions(ctx, b.asked, networkOf(b.proto, ip, v6only), other.local.String()) == nil
}

// elsewhere returns on which network, address or device the asked Config works.
func (b *bind) elsewhere(ctx context.Context, list []*class) (advice []string) {
	if !b.listens || b.multicast {
		return nil
	}
	for _, ip := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if b.dual() && b.admits(ctx, list, ip, true) {
			advice = append(advice, fmt.Sprintf("Network %q works: %q with a wildcard address is dual-stack, and so overlaps both families.", networkOf(b.proto, ip, true), b.proto))
		}
	}
	addresses, _ := net.InterfaceAddrs()
	specific := netip.Addr{}
	for _, ip := range addrs(addresses) {
		better := !specific.IsValid() || specific.IsLoopback() && !ip.IsLoopback()
		if better && b.local.Addr().IsUnspecified() && !ip.IsLinkLocalUnicast() && b.overlaps(ip, true) && b.admits(ctx, list, ip, false) {
			specific = ip
		}
	}
	if specific.IsValid() {
		advice = append(advice, fmt.Sprintf("A specific address works, as in %q.", netip.AddrPortFrom(specific, b.local.Port())))
	}
	devices := devicesOf(list)
	free := slices.DeleteFunc(slices.Clone(list), func(c *class) bool { return c.Device != "" })
	interfaces, _ := net.Interfaces()
	i := slices.IndexFunc(interfaces, func(i net.Interface) bool { return !slices.Contains(devices, i.Name) })
	// Package reuse refuses Exclusive On together with a device.
	if i >= 0 && len(devices) > 0 && b.asked.Exclusive != reuse.On && b.admits(ctx, free, b.local.Addr(), b.v6only) {
		advice = append(advice, fmt.Sprintf("A socket on another device works (SO_BINDTODEVICE), as in %q.", interfaces[i].Name))
	}
	return advice
}

// restart returns which Config works if the socket of the holders is opened again with it.
func (b *bind) restart(list []*class) []string {
	other := *b
	other.refused = false
	for _, c := range []reuse.Config{{Port: reuse.On}, {Addr: reuse.On}} {
		if slices.ContainsFunc(list, func(h *class) bool {
			g := h.guesses[0]
			g.Options = b.options(c)
			return h.UID != b.user || h.orphan || !other.answer(g, c).OK()
		}) {
			continue
		}
		if list[0].PID == os.Getpid() {
			return []string{fmt.Sprintf("Set %s on this process's other socket too, before the bind of each: then it works.", literal(c))}
		}
		return []string{fmt.Sprintf("Restart %s with %s too: then it works.", list[0].subject(), literal(c))}
	}
	return nil
}

func devicesOf(list []*class) (names []string) {
	for _, c := range list {
		if c.Device != "" && !slices.Contains(names, c.Device) {
			names = append(names, c.Device)
		}
	}
	return names
}

// subject names a class in a condition.
func (c *class) subject() string {
	switch {
	case c.count > 1 && c.PID != 0:
		return fmt.Sprintf("pid %d and what shares with it", c.PID)
	case c.count > 1:
		return fmt.Sprintf("each of the %d sockets on %v in %s", c.count, c.Local, c.State)
	case c.PID == os.Getpid():
		return "this process's own socket"
	case c.PID != 0:
		return "pid " + strconv.Itoa(c.PID)
	case c.queued():
		return "the listener of a connection that waits to be accepted"
	case c.orphan:
		return "the socket that left " + c.State + " behind"
	}
	return "the process on " + c.Local.String()
}

// literal writes a Config as in a program.
func literal(c reuse.Config) string {
	if c == (reuse.Config{}) {
		return "reuse.Config{}"
	}
	return "reuse.Config{" + strings.ReplaceAll(strings.ReplaceAll(c.String(), "=", ": reuse."), ",", ", ") + "}"
}
