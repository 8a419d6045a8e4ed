package semantics

import "net/netip"

// FreeBSD. in_pcbbind_avail in sys/netinet/in_pcb.c, in6_pcbbind_avail in
// sys/netinet6/in6_pcb.c (in_pcbbind_setup and in6_pcbbind up to 14).

const freebsdSharing = Options(Addr) | Options(Port) | Options(LB)

// freebsdSecond is the rule of FreeBSD 12 and later. Up to 14 a wildcard group
// of another user's could be joined; see freebsdUser.
func freebsdSecond(upTo14 bool, known Known) func(a, b Binding) Answer {
	return func(a, b Binding) Answer {
		if answer, ok := tcpMulticast(a, b, known); ok {
			return answer
		}
		if !overlap(a, b) {
			return apart(known)
		}
		if freebsdUser(a, b, upTo14) {
			return bsdUser(known)
		}
		if !freebsdLooks(a, b) {
			return bsdBeside(b, known)
		}
		if freebsdShares(b)&a.Options != 0 {
			return bsdShared(known)
		}
		return bsdConflict(b, freebsdSharing, known)
	}
}

// freebsdUser is the test of users. Root is exempt, and so are multicast
// addresses and, on TCP, connected sockets.
func freebsdUser(a, b Binding, upTo14 bool) bool {
	if b.multicast() || b.User == Root || a.User == b.User {
		return false
	}
	if a.Proto == TCP && a.connected() {
		return false
	}
	// 1a43cff92a20 (12.0) inverted the exception for wildcards; 4f02a7d739b3
	// took it away in December 2024. A dual-stack :: looks for users once more, among
	// what takes IPv4, without the exception.
	group := a.Options.Has(LB) && !a.Options.Has(Port)
	return !(upTo14 && b.wildcard() && a.wildcard() && group && !(b.dual() && (a.v4() || a.dual())))
}

// freebsdLooks is the test of conflict's look-up. IPv4 sees a dual-stack ::
// as 0.0.0.0; and a :: sees 0.0.0.0 and forgives it, unless it is ::ffff:0.0.0.0.
// That one forgives both.
func freebsdLooks(a, b Binding) bool {
	if a.wildcard() && b.wildcard() {
		if b.mapped && (a.mapped || a.dual()) {
			return false
		}
		if a.mapped {
			return true
		}
	}
	if sameFamily(a, b) {
		return looks(a, b, freebsdSharing)
	}
	if a.wildcard() && b.wildcard() {
		return b.v4()
	}
	return b.Options&freebsdSharing == 0
}

// freebsdShares returns the options that a must share one of.
func freebsdShares(b Binding) Options {
	shares := b.Options & Opts(Port, LB)
	if b.multicast() {
		// PR 179901: for a group each option means SO_REUSEADDR, too.
		if b.Options&Opts(Addr, Port) != 0 {
			shares |= Opts(Addr, Port)
		}
		if b.Options&Opts(Addr, LB) != 0 {
			shares |= Opts(Addr, LB)
		}
	}
	return shares
}

// freebsdTraffic: SO_REUSEPORT_LB sockets form groups, one for each address, and
// groups come before all other sockets, also a wildcard's before a plain socket
// on a specific address. A dual-stack socket joins none (in_pcbinslbgrouphash).
func freebsdTraffic(upTo14 bool, known Known) func(to destination, sharing []Binding) Traffic {
	return func(to destination, sharing []Binding) Traffic {
		if to.addr.IsMulticast() {
			return bsdCopies(to.addr, sharing, Known{Source, "udp_input, 12's; a socket must have joined the group"})
		}
		// From 15 on a TCP socket joins its group when it listens.
		member := func(b Binding) bool {
			return b.Options.Has(LB) && !b.dual() && (upTo14 || to.proto == UDP || b.State == Listening)
		}
		group := best(to.addr, sharing, member, specificFirst(to.addr))
		if len(group) > 0 {
			// The 257th binds and gets nothing.
			group = group[:min(256, len(group))]
			way := Spread
			if len(group) == 1 {
				way = One
			}
			return Traffic{Way: way, To: group, Known: known, Rule: Rule{"SO_REUSEPORT_LB group", "A hash of the peer's address and the ports chooses among the SO_REUSEPORT_LB sockets of one address, at most 256, before any other socket."}}
		}
		// From 15 on only.
		if len(choose(sharing, func(b Binding) bool { return b.Options.Has(LB) && !b.dual() && b.covers(to.addr) })) > 0 {
			return Traffic{Rule: Rule{"not listening", "Whether an SO_REUSEPORT_LB socket that does not listen yet stands in the way has not been read."}}
		}
		return bsdTraffic(to, sharing, newest, known)
	}
}

func freebsd() System {
	known := Known{Source, "sys/netinet/in_pcb.c in_pcbbind_avail, main of 2026"}
	lookup := Known{Source, "sys/netinet/in_pcb.c in_pcblookup_lbgroup, in_pcblookup_wild_smr, main of 2026"}
	return System{
		name: "freebsd", title: "FreeBSD 15",
		options: freebsdOptions(),
		second:  freebsdSecond(false, known), listen: listens(known),
		traffic: freebsdTraffic(false, lookup),
		connect: func(b Binding) Answer {
			known := Known{Source, "tcp_connect, tcp6_connect; so_reuseport_lb_test.c connect_not_bound"}
			if b.Proto == TCP && b.Options.Has(LB) {
				return Answer{Err: "EOPNOTSUPP", Step: "connect", Known: known, Rule: Rule{"LB connect", "A TCP socket with SO_REUSEPORT_LB cannot connect."}}
			}
			return as(known, connects(b))
		},
		handsOut:  bsdHandsOut(false, Known{Source, "in_pcb_lport"}),
		sameTuple: tupleTaken("EADDRINUSE", Known{Source, "in_pcbconnect"}),
		closing:   Closing{Reset, "Connections in a closed listener's queue are reset; there is no hand-over inside a group.", Known{Source, "soclose, soabort"}},
		facts: []Fact{
			{Restart, "A new listener with any sharing option is bound beside what is left; without one it is refused.", Known{Source, "in_pcbbind_avail"}},
			{PortZero, "A port that an overlapping socket has is not handed out; with a sharing option only the same address counts as overlapping.", Known{Source, "in_pcb_lport"}},
			{DualStack, "A :: without IPV6_V6ONLY is admitted beside 0.0.0.0, never the other way round unless both share; with SO_REUSEPORT_LB it joins no group.", Known{Source, "in6_pcbbind_avail, in_pcbinslbgrouphash"}},
			{Multicast, "SO_REUSEADDR or either other option on both sockets is enough, but SO_REUSEPORT and SO_REUSEPORT_LB do not mix; TCP cannot be bound to a group.", Known{Source, "in_pcbbind_avail, tcp_usr_bind"}},
			{Security, "Another user is refused whatever overlaps. The same user's wildcard SO_REUSEPORT_LB listener takes the traffic of any specific address.", Known{Source, "in_pcbbind_avail, in_pcblookup_lbgroup"}},
			{Late, "An option of a bound socket counts as it is when the next one binds. SO_REUSEPORT_LB set after the bind joins no group.", Known{Source, "in_pcbbind_avail, in_pcbinshash"}},
		},
	}
}

func freebsd14() System {
	s := freebsd()
	known := Known{Measured, "14.0-STABLE"}
	s.name, s.title = "freebsd-14", "FreeBSD 12 to 14"
	s.listen = listens(known)
	s.second = func(a, b Binding) Answer {
		if tried(a, b) || freebsdRestart(a, b) {
			return freebsdSecond(true, known)(a, b)
		}
		return freebsdSecond(true, Known{Source, "sys/netinet/in_pcb.c in_pcbbind_setup, sys/netinet6/in6_pcb.c in6_pcbbind"})(a, b)
	}
	s.traffic = freebsdTraffic(true, known)
	s.connect = func(b Binding) Answer {
		answer := as(known, connects(b))
		if b.Proto == TCP && b.Options.Has(LB) {
			answer.Rule = Rule{"LB connect", "A TCP socket with SO_REUSEPORT_LB connects and stays in its group: the next client that the kernel chooses it for breaks the connection."}
		}
		return answer
	}
	s.sameTuple.Known = known
	s.handsOut = bsdHandsOut(false, known)
	s.closing.Known = known
	s.facts = []Fact{
		{Restart, "A new listener with any sharing option is bound beside what is left, whatever the old one set; without one it is refused. Connections over loopback leave no TIME_WAIT unless net.inet.tcp.nolocaltimewait is 0.", known},
		{PortZero, "The same address and port are never handed out twice. With a sharing option 127.0.0.1 and 0.0.0.0 do get the same port.", known},
		{DualStack, "A :: without IPV6_V6ONLY is admitted beside 0.0.0.0 with no option at all, never the other way round unless both share. ::ffff:0.0.0.0 is admitted beside it and beside another ::ffff:0.0.0.0 with no option. With SO_REUSEPORT_LB a dual-stack :: joins no group: four such listeners got 0/0/0/200 connections.", known},
		{Multicast, "SO_REUSEADDR or either other option on both sockets is enough, but SO_REUSEPORT and SO_REUSEPORT_LB do not mix; TCP cannot be bound to a group.", known},
		{Security, "Another user is refused whatever overlaps, except that anyone may join a wildcard group of SO_REUSEPORT_LB without SO_REUSEPORT, of either family, unless the newcomer is a dual-stack :: beside a socket that takes IPv4 (14.0; which release of 13 or 14 may have taken that away is not known). The same user's wildcard SO_REUSEPORT_LB listener takes the traffic of any specific address. A socket that is bound and does not listen yet is chosen and refuses, so a listener that starts beside others refuses connections while its process waits for a processor between bind and listen. Up to 13 the oldest wildcard socket got the traffic, from 14 on the newest does.", known},
		{Late, "An option of a bound socket counts as it is when the next one binds. SO_REUSEPORT_LB set after the bind joins no group.", known},
	}
	return s
}

// freebsdRestart says that it was measured what becomes of a new listener where an
// old one left a connection.
func freebsdRestart(a, b Binding) bool {
	return !a.Dialed && (a.State == Established || a.State == TimeWait) && a.v4() && !a.wildcard() && !a.multicast() && !a.mapped && !b.mapped &&
		(b.Addr == a.Addr || b.Addr == netip.IPv4Unspecified())
}

func freebsdOptions() []optionData {
	heritage := Known{Source, "4.4BSD"}
	return []optionData{
		{Addr, "SO_REUSEADDR", "", heritage},
		{Port, "SO_REUSEPORT", "", heritage},
		{LB, "SO_REUSEPORT_LB", "12.0", Known{Source, "1a43cff92a20; in jails from 14.0, d93ec8cb1324"}},
	}
}

func bsdOptions() []optionData { return freebsdOptions()[:2] }
