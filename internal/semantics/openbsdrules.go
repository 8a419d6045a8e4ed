package semantics

// OpenBSD. in_pcbbind_locked and in_pcbaddrisavail_lock in sys/netinet/in_pcb.c.
// IPv6 sockets never take IPv4 traffic, and the two families never meet.

func openbsdSecond(a, b Binding) Answer {
	known := Known{Source, "sys/netinet/in_pcb.c in_pcbaddrisavail_lock, 1.320 (7.8)"}
	if a.Proto == TCP && (a.multicast() || b.multicast()) {
		// tcp_bind does not refuse groups. That such a socket listens was not read.
		if a.State == Listening || b.State == Listening {
			known.How = Unsure
		}
	}
	pair := separate(a, b)
	a, b = pair[0], pair[1]
	shares := b.Options & Options(Port)
	if b.multicast() && b.Options != 0 {
		shares = Opts(Addr, Port)
	}
	switch {
	case !overlap(a, b):
		return apart(known)
	case !b.multicast() && b.User != Root && a.User != b.User:
		return bsdUser(known)
	case !looks(a, b, Opts(Addr, Port)):
		return bsdBeside(b, known)
	case shares&a.Options != 0:
		return bsdShared(known)
	}
	return bsdConflict(b, Opts(Addr, Port), known)
}

func openbsd() System {
	known := Known{Source, "sys/netinet/in_pcb.c, 1.320 (7.8)"}
	return System{
		name: "openbsd", title: "OpenBSD",
		options: bsdOptions(),
		second:  openbsdSecond, listen: listens(known),
		// A found socket is moved to the front of its chain; a resize of the
		// table turns the order round.
		traffic: func(to destination, sharing []Binding) Traffic {
			return bsdTraffic(to, separate(sharing...), newest, Known{Source, "in_pcbhash_lookup, 1.320 (7.8)"})
		},
		handsOut: bsdHandsOut(false, known),
		connect:  connects, sameTuple: tupleTaken("EADDRINUSE", Known{Source, "in_pcbconnect"}),
		closing: Closing{Reset, "Connections in a closed listener's queue are reset.", Known{Source, "soclose, soabort"}},
		facts: []Fact{
			{Restart, "A new listener with SO_REUSEADDR or SO_REUSEPORT is bound beside what is left; without one it is refused.", known},
			{PortZero, "With a sharing option a port that sockets on other addresses or connected ones have may be handed out, never one on the same address.", known},
			{DualStack, "There is none: IPv6 sockets take IPv6 only, and ::ffff:a.b.c.d is refused (EADDRNOTAVAIL).", known},
			{Multicast, "SO_REUSEADDR or SO_REUSEPORT on both sockets, in any mix; TCP may be bound to a group.", known},
			{Security, "Another user is refused whatever overlaps. The same user's socket with SO_REUSEADDR on a specific address takes that address's traffic from a wildcard one.", known},
			{Late, "An option of a bound socket counts as it is when the next one binds.", known},
		},
	}
}
