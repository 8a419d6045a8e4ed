package inuse

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// What a kernel decides about two sockets stands in internal/semantics. Here is what
// can be said without knowing the options of one of them, which no system shows:
// every set of options is supposed in turn, and what all that are left agree on is
// certain.

// A bind is a bind that was asked for.
type bind struct {
	target
	system    semantics.System
	user      int
	listens   bool // it is for a listener, and not for a dialed socket
	multicast bool
	refused   bool         // the kernel has refused it
	asked     reuse.Config // with this
}

// options returns the options that a socket has when it binds: those that package
// net sets, and what a Config makes of them.
func (b *bind) options(c reuse.Config) semantics.Options {
	has := func(o semantics.Option) bool { return b.system.OptionName(o) != "" }
	var all semantics.Options
	change := func(o semantics.Option, s reuse.Setting) {
		switch {
		case s == reuse.Off:
			all &^= semantics.Options(o)
		case wants(s) && has(o):
			all |= semantics.Options(o)
		}
	}
	windows := strings.HasPrefix(b.system.Name(), "windows")
	if b.multicast || b.listens && b.proto == semantics.TCP && !windows {
		change(semantics.Addr, reuse.On)
	}
	switch b.system.Name() {
	case "linux", "android", "windows", "windows-2000", "solaris", "solaris-11.4", "illumos":
	default: // the BSDs, macOS and AIX
		if b.multicast {
			change(semantics.Port, reuse.On)
		}
	}
	lb := semantics.Port // the same option, except on FreeBSD
	if has(semantics.LB) {
		lb = semantics.LB
	}
	change(semantics.Addr, c.Addr)
	change(semantics.Port, c.Port)
	change(lb, c.PortLB)
	if wants(c.PortLB) && b.system.Name() == semantics.Solaris114 {
		all &^= semantics.Options(semantics.Addr)
	}
	if wants(c.Exclusive) {
		if keeps := b.listens && b.proto == semantics.TCP && !windows; !keeps {
			all &^= semantics.Options(semantics.Addr)
		}
		all &^= semantics.Options(semantics.Port | semantics.LB)
		change(semantics.Excl, reuse.On)
	}
	return all
}

func wants(s reuse.Setting) bool { return s == reuse.On || s == reuse.Prefer }

// answer is what the kernel says to the bind beside a holder.
func (b *bind) answer(first semantics.Binding, c reuse.Config) semantics.Answer {
	second := semantics.Binding{
		Proto: b.proto, State: semantics.Bound,
		Addr: b.local.Addr().WithZone(""), V6Only: b.v6only, Port: b.local.Port(),
		Options: b.options(c), User: b.user,
	}
	if b.listens && b.proto == semantics.TCP {
		second.State = semantics.Listening
	}
	return b.system.Second(first, second)
}

// A class is a number of holders that the rules do not tell apart.
type class struct {
	Holder                      // the first
	count   int                 // how many there are
	guesses []semantics.Binding // what they may be
}

// classes puts holders together, and supposes of each class what it may be.
func (b *bind) classes(holders []Holder) []*class {
	var list []*class
	for _, h := range holders {
		if h.queued() && slices.ContainsFunc(holders, h.comesFrom) {
			continue // what is true of the listener is true of its queue
		}
		same := func(c *class) bool {
			return c.Network == h.Network && c.State == h.State && c.Local == h.Local && c.UID == h.UID && c.Device == h.Device && c.orphan == h.orphan
		}
		if i := slices.IndexFunc(list, same); i >= 0 {
			list[i].count++
			continue
		}
		list = append(list, &class{Holder: h, count: 1, guesses: b.guesses(h)})
	}
	for _, c := range list {
		for _, other := range list {
			if (c != other || c.count > 1) && b.agree(c, other) {
				c.guesses = slices.DeleteFunc(c.guesses, func(g semantics.Binding) bool {
					return !slices.ContainsFunc(other.guesses, func(o semantics.Binding) bool { return b.system.Second(o, g).OK() })
				})
			}
		}
	}
	return list
}

// agree tells whether two sockets have let each other in, as they overlap. That two
// are there does not show it: a third may have brought them together. To a bind with
// SO_REUSEPORT Linux asks on UDP no more than one such socket of the same user, and on
// TCP none if the one that was bound last has, as it sees it, the same address. There
// it takes an IPv6-only or an IPv4 wildcard for a dual-stack one, and overlooks the
// device. So this is about TCP sockets that listen, which asks anew, of one kind and
// without a device.
func (b *bind) agree(x, y *class) bool {
	if !b.linux() || b.proto != semantics.TCP || x.State != listen || y.State != listen || x.device() || y.device() {
		return false
	}
	if x.UID != y.UID || x.dual() != y.dual() {
		return false
	}
	beside := target{proto: b.proto, local: x.Local, v6only: x.v6only()}
	return beside.overlaps(y.Local.Addr(), y.v6only())
}

// linux tells whether the kernel is one.
func (b *bind) linux() bool { return b.system.Name() == "linux" || b.system.Name() == "android" }

func (c *class) device() bool { return c.Device != "" || c.Local.Addr().Zone() != "" }

func (c *class) dual() bool { return c.Local.Addr() == netip.IPv6Unspecified() && !c.v6only() }

// comesFrom tells whether a connection may be in the queue of a holder, whose user and
// options it then has. Of a connection without a process, -1 may be root.
func (h Holder) comesFrom(l Holder) bool {
	at := target{proto: l.proto(), local: l.Local, v6only: l.v6only()}
	return l.State == listen && max(h.UID, 0) == max(l.UID, 0) && at.overlaps(h.Local.Addr(), true)
}

// guesses returns what a holder may be.
func (b *bind) guesses(h Holder) []semantics.Binding {
	users := []int{h.UID}
	if h.UID < 0 {
		users = []int{b.user, b.user + 1}
	}
	state, only := h.state(), []bool{h.v6only()}
	if b.linux() && h.Remote.IsValid() && h.Local.Addr().Is6() { // Linux does not tell
		only = []bool{false, true}
	}
	if b.linux() && h.State == connected {
		state = semantics.Established
	}
	var list []semantics.Binding
	for _, options := range b.system.Subsets() {
		if options.Has(semantics.Excl) && options&^semantics.Options(semantics.Excl) != 0 {
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

// state is what the rules make of a holder's state.
func (h Holder) state() semantics.State {
	switch {
	case h.State == listen:
		return semantics.Listening
	case h.State == bound || h.State == connected:
		return semantics.Bound
	case h.State == timeWait:
		return semantics.TimeWait
	case h.State == finWait2 && h.orphan: // Linux keeps it as it keeps TIME_WAIT
		return semantics.FinWait2
	case h.State == closeWait:
		return semantics.CloseWait
	}
	return semantics.Established
}

// A verdict is what becomes of the bind with a Config.
type verdict struct {
	config  reuse.Config
	never   bool     // it is refused, whatever the holders are
	refuse  []*class // those that refuse it then
	unknown bool     // the rules do not say
	depends []need   // the holders that it depends on; none: it succeeds
}

// A need is what a holder must have set for a bind to succeed.
type need struct {
	holder *class
	what   string
}

// judge says what becomes of the bind with a Config.
func (b *bind) judge(list []*class, c reuse.Config) verdict {
	v := verdict{config: c}
	for _, holder := range list {
		var good, bad []semantics.Binding
		unknown := false
		for _, g := range holder.guesses {
			switch a := b.answer(g, c); {
			case a.Known.How == semantics.Unknown:
				unknown = true
			case a.OK():
				good = append(good, g)
			case !a.First: // else the holder cannot be so
				bad = append(bad, g)
			}
		}
		v.unknown = v.unknown || unknown
		switch {
		case len(good) == 0 && len(bad) > 0 && !unknown:
			v.never = true
			v.refuse = append(v.refuse, holder)
		case len(good) > 0 && len(bad) > 0:
			v.depends = append(v.depends, need{holder, b.condition(good, bad)})
		}
	}
	switch same := b.refused && b.options(c) == b.options(b.asked); {
	case same && (v.never || len(v.depends) > 0):
		v.never = true // as was seen
	case v.never && b.detour(list, c):
		v.never, v.unknown = false, true
	}
	return v
}

// detour tells whether Linux may admit a bind that a holder refuses, because it asks
// another one only; see agree.
func (b *bind) detour(list []*class, c reuse.Config) bool {
	return b.linux() && b.options(c).Has(semantics.Port) && slices.ContainsFunc(list, func(c *class) bool {
		return (b.proto == semantics.UDP || b.dual() && c.Local.Addr().IsUnspecified()) &&
			slices.ContainsFunc(c.guesses, func(g semantics.Binding) bool {
				return g.Options.Has(semantics.Port) && g.User == b.user
			})
	})
}

// trace tells whether a socket that is gone may have left what admits the bind: the
// kernel remembers the address of the one that was bound last, as long as the port has
// any; see agree.
func (b *bind) trace() bool {
	return b.linux() && b.proto == semantics.TCP && b.dual() && !(b.refused && b.options(b.asked).Has(semantics.Port))
}

// dual tells whether a dual-stack wildcard is to be bound.
func (b *bind) dual() bool { return b.local.Addr() == netip.IPv6Unspecified() && !b.v6only }

// condition says in what the good guesses differ from the bad ones.
func (b *bind) condition(good, bad []semantics.Binding) string {
	if b.local.Addr().Is4() {
		const six = "made an IPv6-only socket"
		dual := slices.DeleteFunc(slices.Clone(good), func(g semantics.Binding) bool { return g.V6Only })
		switch {
		case len(dual) == 0:
			return six
		case len(dual) < len(good):
			return b.condition(dual, bad) + " or " + six
		}
	}
	var least []semantics.Options // sets of options that suffice
	for _, g := range good {
		if !slices.ContainsFunc(good, func(o semantics.Binding) bool {
			return o.Options != g.Options && o.Options&^g.Options == 0
		}) && !slices.Contains(least, g.Options) {
			least = append(least, g.Options)
		}
	}
	var ways []string
	for _, options := range least {
		if options == 0 {
			continue
		}
		var names []string
		for _, o := range options.List() {
			names = append(names, b.system.OptionName(o))
		}
		ways = append(ways, strings.Join(names, " and "))
	}
	users := true // they decide, too
	for _, g := range good {
		users = users && g.User == b.user
	}
	users = users && slices.ContainsFunc(bad, func(o semantics.Binding) bool { return o.User != b.user })
	s := "set " + strings.Join(ways, " or ") + " too"
	if slices.Contains(least, 0) {
		harmful := bad[0].Options
		for _, o := range bad {
			harmful &= o.Options
		}
		var names []string
		for _, o := range harmful.List() {
			names = append(names, b.system.OptionName(o))
		}
		if s = "did not set " + strings.Join(names, " or "); len(names) == 0 {
			s = ""
		}
	}
	if users {
		if s != "" {
			s += " and "
		}
		s += "belongs to your user"
	}
	return s
}

// learn draws the conclusion from a refusal: if all holders but one class would have
// admitted the bind, that one did not, and is nothing that would have. This is wrong
// if what refused has gone since.
func (b *bind) learn(list []*class, c reuse.Config) {
	var doubtful []*class
	for _, holder := range list {
		if slices.ContainsFunc(holder.guesses, func(g semantics.Binding) bool { return !b.answer(g, c).OK() }) {
			doubtful = append(doubtful, holder)
		}
	}
	if !b.refused || len(doubtful) != 1 {
		return
	}
	holder := doubtful[0]
	holder.guesses = slices.DeleteFunc(holder.guesses, func(g semantics.Binding) bool { return b.answer(g, c).OK() })
}

// stubborn returns the holders each of which refuses every Config.
func stubborn(list []*class, verdicts []verdict) []*class {
	return slices.DeleteFunc(slices.Clone(list), func(c *class) bool {
		return slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.never || !slices.Contains(v.refuse, c) })
	})
}

// culprit returns the holder that refuses the bind, or that may, and the rule by
// which it does. Of several rules it is that for a holder that shares the most: if
// that is refused, all are.
func (b *bind) culprit(list []*class, c reuse.Config) (*class, semantics.Answer) {
	var found *class
	var why semantics.Answer
	sure := false
	for _, holder := range list {
		var worst semantics.Answer
		never, most := true, -1
		for _, g := range holder.guesses {
			a := b.answer(g, c)
			switch {
			case a.First:
			case a.OK() || a.Known.How == semantics.Unknown:
				never = false
			case shares(g) >= most:
				worst, most = a, shares(g)
			}
		}
		if worst.Err != "" && (found == nil || never && !sure) {
			found, why, sure = holder, worst, never
		}
	}
	return found, why
}

// shares ranks what a holder may be by how it shares.
func shares(g semantics.Binding) int {
	if g.Options.Has(semantics.Excl) {
		return -1
	}
	return int(g.Options)
}

// candidates are the Configs that Advice may name, the simplest first: what was asked
// for, and what can be had on this system.
func (b *bind) candidates(c reuse.Config) []reuse.Config {
	base := reuse.Config{DeferPort: c.DeferPort}
	list := []reuse.Config{c, base}
	add := func(needs semantics.Options, change func(c *reuse.Config)) {
		for _, o := range needs.List() {
			if b.system.OptionName(o) == "" {
				return
			}
		}
		with := base
		change(&with)
		list = append(list, with)
	}
	add(semantics.Options(semantics.Port), func(c *reuse.Config) { c.Port = reuse.On })
	add(semantics.Options(semantics.Addr), func(c *reuse.Config) { c.Addr = reuse.On })
	add(semantics.Options(semantics.LB), func(c *reuse.Config) { c.PortLB = reuse.On })
	add(semantics.Opts(semantics.Addr, semantics.Port), func(c *reuse.Config) { c.Addr, c.Port = reuse.On, reuse.On })
	add(semantics.Options(semantics.Excl), func(c *reuse.Config) { c.Exclusive = reuse.On })
	return list
}

// advise says what makes the bind succeed.
func (b *bind) advise(list []*class, c reuse.Config) (advice []string, verdicts []verdict) {
	var depends, unknown []verdict
	for _, candidate := range b.candidates(c) {
		v := b.judge(list, candidate)
		verdicts = append(verdicts, v)
		switch {
		case v.never:
		case v.unknown:
			unknown = append(unknown, v)
		case len(v.depends) == 0 && candidate == c:
			return []string{"Try again: nothing that is visible refuses " + literal(c) + " now."}, verdicts
		case len(v.depends) == 0:
			return []string{literal(candidate) + " works." + b.warning(candidate)}, verdicts
		default:
			depends = append(depends, v)
		}
	}
	var before []string
	for _, v := range depends {
		text := v.condition()
		if slices.Contains(before, text) {
			continue // a simpler Config does the same
		}
		before = append(before, text)
		advice = append(advice, literal(v.config)+" works if "+text+"."+b.warning(v.config))
	}
	switch {
	case len(unknown) == 0:
	case b.linux():
		advice = append(advice, "Whether "+literal(unknown[0].config)+" works is not known: Linux may admit SO_REUSEPORT beside one socket of your user without asking the others.")
	case len(advice) == 0:
		advice = append(advice, "Whether any Config works is not known for "+b.system.Title()+".")
	}
	return advice, verdicts
}

// warning says what a Config that works lets happen.
func (b *bind) warning(c reuse.Config) string {
	if c.Addr == reuse.On && b.proto == semantics.UDP && b.system.Name() == "linux" {
		return " Then sockets of any user may share the port."
	}
	return ""
}

// condition joins the needs of all holders.
func (v verdict) condition() string {
	var ways []string
	for i, n := range v.depends {
		if i == 3 {
			ways = append(ways, fmt.Sprintf("so for %d more", len(v.depends)-i))
			break
		}
		ways = append(ways, n.holder.subject()+" "+n.what)
	}
	return strings.Join(ways, ", and ")
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
	fields := strings.ReplaceAll(strings.ReplaceAll(c.String(), "=", ": reuse."), ",", ", ")
	if c == (reuse.Config{}) {
		fields = ""
	}
	return "reuse.Config{" + fields + "}"
}
