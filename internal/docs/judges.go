//go:build !android && !ios

package main

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

// Each judge weighs one claim for one system. What the rules decide is asked of
// them; the rest says where it is known from.

func measured(where string) semantics.Known {
	return semantics.Known{How: semantics.Measured, Where: where}
}

func judgeDead(s semantics.System) finding {
	switch s.Name() {
	case "linux":
		return typed(limits, "TIME_WAIT lasts 60 s, whatever the segment lifetime; the side that closes first has it; and a process that dies with unread data leaves none, as its connection is reset.", measured("6.18"))
	case "freebsd-14":
		return typed(limits, "Over loopback there is no TIME_WAIT, unless net.inet.tcp.nolocaltimewait is 0.", measured("14.0-STABLE"))
	case "netbsd":
		return typed(limits, "Over loopback TIME_WAIT lasts 2 s.", measured("7.99.34"))
	}
	return typed(unknown, "How long TIME_WAIT lasts has been neither measured nor read.")
}

// judgeRestart asks for a bind beside what a listener left: without SO_REUSEADDR
// no, with it on both yes. Whether the new socket's is enough is an edge.
func judgeRestart(s semantics.System, edges bool, remark string, states ...semantics.State) finding {
	var checks []check
	ask := func(state semantics.State, pl place, was, now semantics.Options, want bool, edge bool) {
		a := binding(variant{semantics.TCP, state}, specific(), was, me)
		a.Port = 50001 // which 128 does not divide; see NetBSD
		b := binding(variants()[1], pl, now, me)
		b.Port = a.Port
		answer := s.Second(a, b)
		c := check{what: state.String() + " left, " + pl.name, want: "no", got: outcome(answer), known: answer.Known, edge: edge}
		c.what += ", " + optionPair{was, now}.String()
		if want {
			c.want = "yes"
		}
		checks = append(checks, c)
	}
	for _, state := range states {
		for _, pl := range []place{specific(), wildcard()} {
			ask(state, pl, 0, 0, false, false)
			ask(state, pl, addr(), addr(), true, false)
			if edges {
				ask(state, pl, 0, addr(), true, true)
			}
		}
	}
	return weigh(checks, remark)
}

// remark is what a system's rules say of a topic, if anything.
func remark(s semantics.System, t semantics.Topic) string {
	f := s.Fact(t)
	if f.Known.How == semantics.Unknown {
		return ""
	}
	return f.Text
}

func judgeShown(s semantics.System) finding {
	text := "By its rules; the program has not been run there."
	if s.Name() == "linux" {
		text = "A test compares each outcome, and what the kernel lists meanwhile."
	}
	return judgeRestart(s, false, text, semantics.TimeWait, semantics.Established)
}

func judgeCopies(s semantics.System) finding {
	udp := variants()[2]
	var checks []check
	for _, pl := range []place{wildcard(), group()} {
		checks = append(checks, asked(s, udp, [2]place{pl, pl}, optionPair{0, 0}, me, false))
		// Only multicast: the same unicast address is not shared.
		unicast := asked(s, udp, [2]place{specific(), specific()}, optionPair{addr(), addr()}, me, false)
		unicast.edge = true
		checks = append(checks, unicast)
		b := binding(udp, pl, addr(), me)
		t := s.Traffic(group().addr, []semantics.Binding{b, b})
		c := check{what: "a datagram to two sockets on " + pl.name, want: "copies to 2", got: notKnown, known: t.Known}
		if t.Known.How != semantics.Unknown {
			c.got = t.Way.String() + " to " + map[int]string{0: "none", 1: "1", 2: "2"}[len(t.To)]
		}
		checks = append(checks, c)
	}
	// 0.0.0.0 twice with SO_REUSEADDR is a unicast address, too; that some
	// systems refuse it is said above, and the group's own address decides.
	checks = append(checks, asked(s, udp, [2]place{group(), group()}, optionPair{addr(), addr()}, me, true))
	text := remark(s, semantics.Multicast)
	if s.Name() == "linux" {
		text += " A socket on 0.0.0.0 gets a group's datagrams without joining, unless it clears IP_MULTICAST_ALL."
	}
	return weigh(checks, text)
}

// bsdTable says what the eight rows and their kin say of a pair.
func bsdTable(pl [2]place, o optionPair) bool {
	return apart(pl) || mixed(pl) && o.b.Has(semantics.Addr)
}

func judgeTable(s semantics.System) finding {
	var checks []check
	for _, v := range variants() {
		for _, pl := range pairs4() {
			for _, o := range among(addr()) {
				c := asked(s, v, pl, o, me, bsdTable(pl, o))
				c.edge = v.proto == semantics.UDP
				checks = append(checks, c)
				c = asked(s, v, pl, o, other, bsdTable(pl, o))
				c.edge = true
				checks = append(checks, c)
			}
		}
	}
	return weigh(checks, "")
}

func judgeSecondOnly(s semantics.System) finding {
	var checks []check
	ask := func(v variant, pl [2]place, b semantics.Options, edge bool) {
		with, without := bind(s, v, pl, addr(), b, me), bind(s, v, pl, 0, b, me)
		checks = append(checks, check{
			kind: kind(v), what: pairName(pl) + ", " + optionPair{addr(), b}.String(), want: outcome(without), got: outcome(with), known: with.Known, edge: edge,
		})
	}
	for _, v := range variants() {
		for _, pl := range pairs4() {
			for _, b := range []semantics.Options{0, addr()} {
				ask(v, pl, b, v.proto == semantics.UDP)
			}
		}
	}
	ask(variants()[2], [2]place{group(), group()}, addr(), true)
	return weigh(checks, "")
}

func judgePort(s semantics.System) finding {
	var checks []check
	for _, v := range variants() {
		for _, pl := range [][2]place{{specific(), specific()}, {wildcard(), wildcard()}} {
			for _, o := range among(port()) {
				checks = append(checks, asked(s, v, pl, o, me, o.a.Has(semantics.Port) && o.b.Has(semantics.Port)))
			}
			c := asked(s, v, pl, optionPair{port(), port()}, other, true)
			c.edge = true
			checks = append(checks, c)
		}
	}
	return weigh(checks, remark(s, semantics.Late))
}

// judgeImplied asks whether SO_REUSEPORT on the second socket admits it wherever
// SO_REUSEADDR does. Then the claim is wrong.
func judgeImplied(s semantics.System) finding {
	from := &origins{}
	var only []string
	missing := false
	ask := func(a semantics.Binding, v variant, pl place, name string) {
		x, y := s.Second(a, binding(v, pl, addr(), me)), s.Second(a, binding(v, pl, port(), me))
		from.add(x.Known)
		from.add(y.Known)
		missing = missing || x.Known.How == semantics.Unknown || x.OK() && y.Known.How == semantics.Unknown
		if x.OK() && y.Known.How != semantics.Unknown && !y.OK() && !slices.Contains(only, name) {
			only = append(only, name)
		}
	}
	for _, was := range s.Subsets() {
		for _, v := range variants() {
			for _, pl := range pairs4() {
				ask(binding(v, pl[0], was, me), v, pl[1], pairName(pl)+" after "+shortSet(was))
			}
		}
		for _, state := range []semantics.State{semantics.TimeWait, semantics.Established} {
			ask(binding(variant{semantics.TCP, state}, specific(), was, me), variants()[1], wildcard(), state.String()+" left by "+shortSet(was))
		}
	}
	switch {
	case len(only) > 0:
		return finding{holds, "Beside a socket that set SO_REUSEADDR, as in " + strings.Join(only[:min(2, len(only))], " or ") + ", it admits a second, and SO_REUSEPORT does not.", from}
	case missing:
		return finding{unknown, "What SO_REUSEPORT does alone is not known.", from}
	}
	return finding{wrong, "For a unicast address SO_REUSEPORT on the second socket does all that SO_REUSEADDR does there, TIME_WAIT included.", from}
}

func judgeTuple(s semantics.System) finding {
	a := s.SameTuple()
	c := check{what: "connect", want: "EADDRINUSE", got: strings.TrimPrefix(a.Err, "WSA"), known: a.Known}
	if a.Known.How == semantics.Unknown {
		c.got = notKnown
	}
	f := weigh([]check{c}, "")
	if f.verdict == unknown {
		f.why = "Which error it is has not been found."
	} else {
		f.why = "It is " + a.Err + "."
		if f.verdict == wrong {
			f.why += " The comment is right."
		}
	}
	return f
}

// judgeGroup compares each pair of options with the one that has SO_REUSEADDR
// wherever it has SO_REUSEPORT.
func judgeGroup(s semantics.System) finding {
	udp := variants()[2]
	same := func(o semantics.Options) semantics.Options {
		if o.Has(semantics.Port) {
			return addr()
		}
		return o
	}
	var checks []check
	for _, pl := range []place{group(), wildcard()} {
		for _, o := range among(addr(), port()) {
			plain := bind(s, udp, [2]place{pl, pl}, same(o.a), same(o.b), me)
			c := asked(s, udp, [2]place{pl, pl}, o, me, plain.OK())
			if plain.Known.How == semantics.Unknown {
				c.got = notKnown
			}
			c.edge = pl != group()
			checks = append(checks, c)
		}
	}
	return weigh(checks, "")
}

func judgeBSD(s semantics.System) finding {
	var checks []check
	for _, v := range variants() {
		for _, pl := range pairs4() {
			for _, o := range among(addr(), port(), addr()|port()) {
				want := apart(pl) || mixed(pl) && o.b != 0 || o.a.Has(semantics.Port) && o.b.Has(semantics.Port)
				checks = append(checks, asked(s, v, pl, o, me, want))
				c := asked(s, v, pl, o, other, want)
				c.edge = true
				checks = append(checks, c)
			}
		}
	}
	b := binding(variants()[1], specific(), port(), me)
	t := s.Traffic(specific().addr, []semantics.Binding{b, b})
	checks = append(checks, check{what: "connections to two listeners with PORT", want: "one", got: t.Way.String(), known: t.Known, edge: true})
	return weigh(checks, "For one user every bind is as it was. "+s.Fact(semantics.Security).Text)
}

func judgeOldLinux(s semantics.System) finding {
	var checks []check
	b := binding(variants()[0], specific(), port(), me)
	answer := s.Second(b, b)
	c := check{what: "setting SO_REUSEPORT", want: "ENOPROTOOPT", got: outcome(answer), known: answer.Known}
	checks = append(checks, c)
	for _, pl := range pairs4() {
		for _, o := range among(addr()) {
			checks = append(checks, asked(s, variants()[1], pl, o, me, apart(pl)))
			checks = append(checks, asked(s, variants()[0], pl, o, me, apart(pl) || o == optionPair{addr(), addr()}))
			users := asked(s, variants()[0], pl, o, other, apart(pl) || o == optionPair{addr(), addr()})
			checks = append(checks, users)
		}
	}
	return weigh(checks, "Client sockets need it on both. Such a kernel has not been run; its source says so.")
}

func judgeNewLinux(s semantics.System) finding {
	var checks []check
	for _, v := range variants() {
		for _, pl := range pairs4() {
			checks = append(checks, asked(s, v, pl, optionPair{port(), port()}, me, true))
			checks = append(checks, asked(s, v, pl, optionPair{port(), port()}, other, apart(pl)))
			// As on BSD: beside another address the second's alone would do.
			c := asked(s, v, pl, optionPair{0, port()}, me, apart(pl) || mixed(pl))
			c.edge = true
			checks = append(checks, c)
		}
	}
	b := binding(variants()[1], specific(), port(), me)
	t := s.Traffic(specific().addr, []semantics.Binding{b, b})
	checks = append(checks, check{what: "connections to two listeners", want: "spread", got: t.Way.String(), known: t.Known})
	return weigh(checks, "Nor is it even: a hash of addresses and ports chooses, blind to load, and who does not accept keeps its share.")
}

func judgeBoth(s semantics.System) finding {
	var checks []check
	for _, v := range variants() {
		for _, pl := range pairs4() {
			for _, o := range among(addr()) {
				want := apart(pl) || o == optionPair{addr(), addr()} && v.state != semantics.Listening
				checks = append(checks, asked(s, v, pl, o, me, want), asked(s, v, pl, o, other, want))
			}
		}
	}
	// Both bound; the first listens, and then the second.
	first, second := binding(variants()[1], specific(), addr(), me), binding(variants()[0], specific(), addr(), other)
	answer := s.Listen(first, second)
	checks = append(checks, check{what: "listen beside a listener", want: "no", got: outcome(answer), known: answer.Known})
	return weigh(checks, "Users make no difference.")
}

func judgeAndroid(s semantics.System) finding {
	linux := semantics.Systems()[slices.IndexFunc(semantics.Systems(), func(s semantics.System) bool { return s.Name() == "linux" })]
	var checks []check
	eachPair(s, func(v variant, pl [2]place, a, b semantics.Options, user int) {
		x, y := bind(s, v, pl, a, b, user), bind(linux, v, pl, a, b, user)
		checks = append(checks, check{kind: kind(v), what: pairName(pl) + ", " + optionPair{a, b}.String(), want: y.String(), got: x.String(), known: x.Known})
	})
	return weigh(checks, "It is the same kernel; nobody has run the pairs on it. Each app is a user of its own, so SO_REUSEPORT never shares between apps.")
}

func judgeWindows(s semantics.System) finding {
	var checks []check
	old := s.Name() == "windows-2000"
	for _, v := range variants() {
		for _, pl := range pairs4() {
			checks = append(checks, asked(s, v, pl, optionPair{addr(), addr()}, me, true), asked(s, v, pl, optionPair{addr(), addr()}, other, true))
			// Taking from a socket that has not set it, before Server 2003 only.
			if !mixed(pl) {
				checks = append(checks, asked(s, v, pl, optionPair{0, addr()}, me, old || apart(pl)))
			}
			if pl[0].addr.IsUnspecified() {
				checks = append(checks, asked(s, v, pl, optionPair{excl(), addr()}, me, false))
			}
			if pl[0] == pl[1] {
				checks = append(checks, asked(s, v, pl, optionPair{excl(), addr()}, me, false))
			}
			if pl[1].addr.IsUnspecified() && pl[0] != pl[1] {
				c := asked(s, v, pl, optionPair{excl(), addr()}, me, false)
				c.edge = true // it gets nothing of the specific address
				checks = append(checks, c)
			}
		}
	}
	a := binding(variant{semantics.TCP, semantics.TimeWait}, specific(), 0, me)
	answer := s.Second(a, binding(variants()[1], specific(), 0, me))
	checks = append(checks, check{what: "bind beside TIME_WAIT", want: "yes", got: outcome(answer), known: answer.Known})
	remark := "Both sockets must set SO_REUSEADDR; without any option a specific address of the same user takes a wildcard's traffic."
	if old {
		remark = "SO_REUSEADDR on the second is enough; only administrators could set SO_EXCLUSIVEADDRUSE."
	}
	return weigh(checks, remark)
}

func judgeSolaris(s semantics.System) finding {
	var checks []check
	has := check{what: "SO_REUSEPORT", want: "none", got: cmp.Or(s.OptionName(semantics.Port), "none")}
	_, has.known = s.OptionSince(semantics.Port)
	if has.got != has.want {
		since, _ := s.OptionSince(semantics.Port)
		has.got = "there, from " + since
	}
	checks = append(checks, has)
	for _, v := range variants() {
		for _, pl := range pairs4() {
			checks = append(checks, asked(s, v, pl, optionPair{excl(), addr()}, me, apart(pl)))
			c := asked(s, v, pl, optionPair{0, addr()}, me, bsdTable(pl, optionPair{0, addr()}))
			c.edge = true
			checks = append(checks, c)
		}
	}
	return weigh(checks, "SO_EXCLBIND does make a socket immune, on either side. There is no test of users.")
}

func judgeLB(s semantics.System) finding {
	var checks []check
	since, known := s.OptionSince(semantics.LB)
	checks = append(checks, check{what: "SO_REUSEPORT_LB from", want: "12.0", got: since, known: known})
	for _, v := range variants()[1:] {
		for _, pl := range []place{specific(), wildcard(), dual()} {
			b := binding(v, pl, lb(), me)
			t := s.Traffic(netip.MustParseAddr("192.0.2.1"), []semantics.Binding{b, b})
			checks = append(checks, check{kind: kind(v), what: "two sockets on " + pl.name, want: "spread", got: t.Way.String(), known: t.Known, edge: pl == dual()})
			checks = append(checks, asked(s, v, [2]place{pl, pl}, optionPair{lb(), lb()}, me, true))
		}
	}
	return weigh(checks, "On :: that takes IPv4, too, the socket bound last gets everything. A wildcard group takes the traffic of a specific address, which no group on Linux does; and the 257th member gets nothing.")
}

func judgeProgram(s semantics.System) finding {
	from := &origins{}
	all := true
	eachPair(s, func(v variant, pl [2]place, a, b semantics.Options, user int) {
		k := bind(s, v, pl, a, b, user).Known
		all = all && k.How == semantics.Measured
		from.add(k)
	})
	switch {
	case all && s.Name() == "linux":
		return finding{holds, "It runs with every change here, and finds no difference.", from}
	case all:
		return finding{holds, "It was run there once, and found no difference.", from}
	}
	return finding{unknown, "Nobody has run it there.", &origins{}}
}

// connectedFirst is where a connected socket is known to come first.
func connectedFirst(s semantics.System) semantics.Known {
	switch s.Name() {
	case "linux":
		return measured("6.18.44")
	case "freebsd", "freebsd-14", "openbsd", "netbsd", "dragonfly", "darwin", "ios":
		return semantics.Known{How: semantics.Source, Where: "the look-up of a packet's socket, which tries all four of addresses and ports first"}
	}
	return semantics.Known{}
}

func judgeOpen(s semantics.System) finding {
	o := port()
	if s.OptionName(semantics.Port) == "" {
		o = addr()
	}
	listener, bound := binding(variants()[1], specific(), o, me), binding(variants()[0], specific(), o, me)
	var checks []check
	if second := s.Second(listener, bound); second.OK() {
		t := s.Traffic(specific().addr, []semantics.Binding{listener, bound})
		c := check{what: "a connection, beside a younger socket that is bound only", want: "to the listener", got: "to the listener", known: t.Known}
		switch {
		case t.Known.How == semantics.Unknown:
			c.got = notKnown
		case slices.Contains(t.To, 1):
			c.got = "chosen for the socket that does not listen, and lost"
		}
		checks = append(checks, c)
	}
	first := connectedFirst(s)
	c := check{what: "a connected socket", want: "first", got: "first", known: first}
	if first.How == semantics.Unknown {
		c.got = notKnown
	}
	linger := check{what: "lingering", want: "as said", got: notKnown}
	if s.Name() == "linux" {
		linger.got, linger.known = "as said", measured("6.18")
	}
	checks = append(checks, c, linger)
	f := weigh(checks, "")
	switch f.verdict {
	case holds:
		f.why = "Lingering for some seconds leaves TIME_WAIT as it is; for none, it resets the connection."
	case wrong:
		f.why += " A connected socket does come first; what lingering does has not been measured."
	case unknown:
		f.why = "What lingering does has not been measured."
	}
	return f
}
