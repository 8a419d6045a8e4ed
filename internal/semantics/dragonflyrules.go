package semantics

// DragonFly. in_pcbbind in sys/netinet/in_pcb.c, in6_pcbbind in
// sys/netinet6/in6_pcb.c, of 2020; IPv6 sockets never take IPv4 traffic.

func dragonflySecond(a, b Binding) Answer {
	known := Known{Source, "sys/netinet/in_pcb.c in_pcbbind, 5.9-dev of 2020-07"}
	if answer, ok := tcpMulticast(a, b, known); ok {
		return answer
	}
	pair := separate(a, b)
	a, b = pair[0], pair[1]
	switch {
	case !overlap(a, b):
		return apart(known)
	case !b.multicast() && b.User != Root && a.User != b.User:
		return bsdUser(known)
	case !looks(a, b, Opts(Addr, Port)):
		return bsdBeside(b, known)
	case addrMeansPort(b)&a.Options != 0:
		return bsdShared(known)
	case a.connected() && !a.Dialed && a.v4():
		// SS_ACCEPTMECH, 2d5847e29c (5.6).
		return answer("", "accepted", "Accepted sockets do not stand in the way of an IPv4 bind, unless kern.ipc.soaccept_reuse is 0.", known)
	}
	return bsdConflict(b, Opts(Addr, Port), known)
}

// addrMeansPort returns the options that a must share one of: for a group
// SO_REUSEADDR means SO_REUSEPORT, too, on the socket that binds, and not the
// other way round.
func addrMeansPort(b Binding) Options {
	if b.multicast() && b.Options.Has(Addr) {
		return Opts(Addr, Port)
	}
	return b.Options & Options(Port)
}

// dragonflyTraffic: for IPv4 the sockets of one address form a group, which TCP
// sockets enter when they listen; in6_pcblookup_hash looks for none.
func dragonflyTraffic(to destination, sharing []Binding) Traffic {
	known := Known{Source, "in_pcblookup_pkthash, in6_pcblookup_hash, 5.9-dev of 2020-07"}
	sharing = separate(sharing...)
	if to.addr.IsMulticast() {
		return bsdCopies(to.addr, sharing, known)
	}
	ready := func(b Binding) bool { return to.proto == UDP || b.State == Listening }
	top := best(to.addr, sharing, ready, specificFirst(to.addr))
	switch {
	case len(top) == 0:
		return Traffic{Known: known, Rule: Rule{"nobody", "A TCP socket that does not listen gets nothing."}}
	case to.addr.Is4() && len(top) > 1:
		return Traffic{Way: Spread, To: top, Known: known, Rule: Rule{"group", "A hash of the packet chooses among the sockets of one IPv4 address."}}
	case sharing[top[0]].wildcard():
		return Traffic{Way: One, To: oldest(top), Known: known, Rule: Rule{"oldest", "Of the sockets on an IPv6 wildcard the one bound first gets everything."}}
	}
	return Traffic{Way: One, To: newest(top), Known: known, Rule: Rule{"newest", "Of the sockets on a specific IPv6 address the one bound last gets everything."}}
}

func dragonfly() System {
	known := Known{Source, "sys/netinet/in_pcb.c, 5.9-dev of 2020-07"}
	return System{
		name: "dragonfly", title: "DragonFly",
		options: bsdOptions(),
		second:  dragonflySecond, listen: listens(known), traffic: dragonflyTraffic,
		handsOut: bsdHandsOut(false, known),
		connect:  connects, sameTuple: tupleTaken("EADDRINUSE", Known{Source, "in_pcbconnect"}),
		closing: Closing{Moved, "The queue of a closed listener, half-open connections included, moves to the last other member of its group (3.6).", Known{Source, "tcp_close, in_pcblocalgroup_last, soinherit, syncache_destroy"}},
		facts: []Fact{
			{Restart, "On IPv4 accepted connections never stand in the way (5.6, kern.ipc.soaccept_reuse); on IPv6 a new listener needs SO_REUSEADDR or SO_REUSEPORT.", known},
			{PortZero, "With a sharing option a port that sockets on other addresses or connected ones have may be handed out, never one on the same address.", known},
			{DualStack, "There is none: IPv6 sockets take IPv6 only (4.2, 727ccde8cc).", known},
			{Multicast, "SO_REUSEADDR on the second socket and either option on the first, or SO_REUSEPORT on both; TCP cannot be bound to a group.", known},
			{Security, "Another user is refused whatever overlaps (4.2, 0323d5fde1). The same user's socket with SO_REUSEADDR on a specific address takes that address's traffic from a wildcard one.", known},
			{Late, "An option of a bound socket counts as it is when the next one binds.", known},
		},
	}
}
