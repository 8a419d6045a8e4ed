package semantics

// FreeBSD. in_pcbbind_avail in sys/netinet/in_pcb.c, in6_pcbbind_avail in
// sys/netinet6/in6_pcb.c (in_pcbbind_setup and in6_pcbbind up to 14).

// freebsdRules are the rules of FreeBSD 12 and later. Up to 14 any user may join a wildcard
// group, see freebsdUser.
func freebsdRules(upTo14 bool, evidence func(a, b Binding) Evidence) bsdRules {
	return bsdRules{
		evidence: evidence, finds: freebsdFinds, group: freebsdGroup,
		user: func(a, b Binding) bool { return freebsdUser(a, b, upTo14) },
	}
}

// freebsdUser is the test of users. On TCP, connected sockets are exempt.
func freebsdUser(a, b Binding, upTo14 bool) bool {
	if a.Proto == TCP && a.connected() {
		return false
	}
	// 1a43cff92a20 (12.0) inverted the exception for wildcards, and 4f02a7d739b3
	// removed it in December 2024. A dual-stack :: has a second test of users, among
	// the sockets that take IPv4, without the exception.
	group := a.Options.Has(LB) && !a.Options.Has(Port)
	return !(upTo14 && b.wildcard() && a.wildcard() && group && !(b.dual() && (a.v4() || a.dual())))
}

// freebsdFinds: ::ffff:0.0.0.0 ignores another one and a dual-stack ::, which do not
// ignore it.
func freebsdFinds(a, b Binding) bool {
	if a.wildcard() && b.wildcard() {
		if b.mapped && (a.mapped || a.dual()) {
			return false
		}
		if a.mapped {
			return true
		}
	}
	return dualFinds(a, b)
}

// freebsdGroup: PR 179901, for a group each option also means SO_REUSEADDR.
func freebsdGroup(set Options) (shares Options) {
	if set&(Addr|Port) != 0 {
		shares |= Addr | Port
	}
	if set&(Addr|LB) != 0 {
		shares |= Addr | LB
	}
	return shares
}

// freebsdTraffic: SO_REUSEPORT_LB sockets form a group for each address. Groups come
// before all other sockets: the group of a wildcard comes before a plain socket on
// a specific address. A dual-stack socket joins no group (in_pcbinslbgrouphash).
func freebsdTraffic(upTo14 bool, known Evidence) func(to destination, sharing []Binding) Traffic {
	return func(to destination, sharing []Binding) Traffic {
		if to.addr.IsMulticast() {
			return bsdCopies(to.addr, sharing, Evidence{Source, "udp_input, 12's; a socket must have joined the group"})
		}
		inGroup := func(b Binding) bool { return b.Options.Has(LB) && !b.dual() }
		// From 15 on a TCP socket joins its group when it listens.
		member := func(b Binding) bool { return inGroup(b) && (upTo14 || to.proto == UDP || b.State == Listening) }
		group := best(to.addr, sharing, member)
		switch {
		case len(group) > 0:
			// The 257th binds and gets nothing.
			return Traffic{Way: Spread, To: group[:min(256, len(group))], Evidence: known, Rule: Rule{"SO_REUSEPORT_LB group", "A hash of the peer's address and the ports chooses one of the SO_REUSEPORT_LB sockets on an address, before any other socket. A group has at most 256 sockets: the 257th binds and gets nothing (source)."}}
		case len(best(to.addr, sharing, inGroup)) > 0: // from 15 on only
			return Traffic{Rule: Rule{"not listening", "Whether an SO_REUSEPORT_LB socket that does not listen yet is chosen is unverified."}}
		}
		return bsdTraffic(to, sharing, newest, known)
	}
}

func freebsd() System {
	known := Evidence{Source, "sys/netinet/in_pcb.c in_pcbbind_avail, main of 2026"}
	options := bsdOptions()
	options[LB] = optionData{"SO_REUSEPORT_LB", "12.0", Evidence{Source, "1a43cff92a20; in jails from 14.0, d93ec8cb1324"}}
	return System{
		name: "freebsd", title: "FreeBSD 15",
		options:     options,
		bind:        freebsdRules(false, always(known)).bind,
		traffic:     freebsdTraffic(false, Evidence{Source, "sys/netinet/in_pcb.c in_pcblookup_lbgroup, in_pcblookup_wild_smr, main of 2026"}),
		assignsPort: bsdAssigns(false, Evidence{Source, "in_pcb_lport"}),
		facts: []Fact{
			{Closing, "Connections in a closed listener's accept queue are reset, also within a group.", Evidence{Source, "soclose, soabort"}},
			{Connect, "The error is EADDRINUSE. A TCP socket with SO_REUSEPORT_LB cannot connect: EOPNOTSUPP.", Evidence{Source, "in_pcbconnect; tcp_connect, tcp6_connect, so_reuseport_lb_test.c connect_not_bound"}},
			{Restart, "A new listener with any sharing option binds while connections of the previous one remain. Without an option the bind fails.", Evidence{Source, "in_pcbbind_avail"}},
			{PortZero, "Port 0 never returns the port of an overlapping socket. With a sharing option only the same address counts as overlapping.", Evidence{Source, "in_pcb_lport"}},
			{DualStack, "A :: without IPV6_V6ONLY binds alongside 0.0.0.0. 0.0.0.0 binds alongside such a :: only if both share. A dual-stack :: with SO_REUSEPORT_LB joins no group.", Evidence{Source, "in6_pcbbind_avail, in_pcbinslbgrouphash"}},
			{Multicast, "SO_REUSEADDR or either other option on both sockets is enough, but SO_REUSEPORT and SO_REUSEPORT_LB do not mix. TCP cannot be bound to a group.", Evidence{Source, "in_pcbbind_avail, tcp_usr_bind"}},
			{Security, "An overlapping bind of another user fails. A wildcard SO_REUSEPORT_LB listener of the same user gets the traffic of any specific address.", Evidence{Source, "in_pcbbind_avail, in_pcblookup_lbgroup"}},
			{Late, "An option of a bound socket counts as it is set when the next socket binds. SO_REUSEPORT_LB set after the bind joins no group.", Evidence{Source, "in_pcbbind_avail, in_pcbinshash"}},
		},
	}
}

func freebsd14() System {
	s := freebsd()
	known := Evidence{Measured, "14.0-STABLE"}
	s.name, s.title = "freebsd-14", "FreeBSD 12 to 14"
	s.bind = freebsdRules(true, func(a, b Binding) Evidence {
		if measuredPair(a, b) || measuredRestart(a, b) && a.State != FinWait2 {
			return known
		}
		return Evidence{Source, "sys/netinet/in_pcb.c in_pcbbind_setup, sys/netinet6/in6_pcb.c in6_pcbbind"}
	}).bind
	s.traffic = freebsdTraffic(true, known)
	s.assignsPort = bsdAssigns(false, known)
	s.facts = []Fact{
		{Closing, "Connections in a closed listener's accept queue are reset, also within a group.", known},
		{Connect, "The error is EADDRINUSE. A TCP socket with SO_REUSEPORT_LB connects and stays in its group. The next client that the kernel assigns to it breaks the connection.", known},
		{Restart, "A new listener with any sharing option binds while connections of the previous one remain, whatever that one set. Without an option the bind fails. Connections over loopback leave no TIME_WAIT unless net.inet.tcp.nolocaltimewait is 0.", known},
		{PortZero, "Port 0 never returns the same address and port twice. With a sharing option 127.0.0.1 and 0.0.0.0 can get the same port.", known},
		{DualStack, "A :: without IPV6_V6ONLY binds alongside 0.0.0.0 without an option. 0.0.0.0 binds alongside such a :: only if both share. ::ffff:0.0.0.0 binds alongside such a ::, and alongside another ::ffff:0.0.0.0, without an option. A dual-stack :: with SO_REUSEPORT_LB joins no group: four such listeners got 0, 0, 0 and 200 connections.", known},
		{Multicast, "SO_REUSEADDR or either other option on both sockets is enough, but SO_REUSEPORT and SO_REUSEPORT_LB do not mix. TCP cannot be bound to a group.", known},
		{Security, "An overlapping bind of another user fails, except that any user may join a wildcard group of SO_REUSEPORT_LB without SO_REUSEPORT, of either family. A dual-stack :: may not join if a socket of the port takes IPv4. (Measured on 14.0. Whether a release of 13 or 14 removed that is unverified.) A wildcard SO_REUSEPORT_LB listener of the same user gets the traffic of any specific address. The kernel also chooses a TCP socket that is bound and does not listen yet, and that socket refuses the connection. So a listener that starts on a shared port refuses connections between bind and listen: 4 of 2,512 with SO_REUSEPORT and 126 of 3,817 with SO_REUSEPORT_LB in one test. Up to 13 the oldest wildcard socket gets the traffic, from 14 on the newest.", known},
		{Late, "An option of a bound socket counts as it is set when the next socket binds. SO_REUSEPORT_LB set after the bind joins no group.", known},
	}
	return s
}
