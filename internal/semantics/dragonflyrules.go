package semantics

// DragonFly. in_pcbbind in sys/netinet/in_pcb.c, in6_pcbbind in
// sys/netinet6/in6_pcb.c, of 2020; IPv6 sockets never take IPv4 traffic.

func dragonflyBind(a, b Binding) Answer {
	known := Evidence{Source, "sys/netinet/in_pcb.c in_pcbbind, 5.9-dev of 2020-07"}
	is := bsdRules{evidence: always(known), ipv6Only: true, finds: bsdFinds, group: addrIsPort}.bind(a, b)
	if is.Rule.Name == "plain" && a.connected() && !a.Dialed && a.v4() {
		// SS_ACCEPTMECH, 2d5847e29c (5.6).
		return answer("", "accepted", "Accepted connections do not prevent an IPv4 bind, unless kern.ipc.soaccept_reuse is 0.", known)
	}
	return is
}

// dragonflyTraffic: for IPv4 the sockets of one address form a group, which TCP sockets
// join when they listen. in6_pcblookup_hash looks for no group.
func dragonflyTraffic(to destination, sharing []Binding) Traffic {
	known := Evidence{Source, "in_pcblookup_pkthash, in6_pcblookup_hash, 5.9-dev of 2020-07"}
	sharing = ipv6Only(sharing...)
	if to.addr.IsMulticast() {
		return bsdCopies(to.addr, sharing, known)
	}
	top := best(to.addr, sharing, ready(to))
	switch {
	case len(top) == 0:
		return Traffic{Evidence: known, Rule: Rule{"none", "A TCP socket that does not listen gets nothing."}}
	case to.addr.Is4():
		return Traffic{Way: Spread, To: top, Evidence: known, Rule: Rule{"group", "A hash of the packet chooses one of the sockets on an IPv4 address."}}
	case sharing[top[0]].wildcard():
		return Traffic{Way: One, To: oldest(top), Evidence: known, Rule: Rule{"oldest", "The socket bound first on an IPv6 wildcard gets everything."}}
	}
	return Traffic{Way: One, To: newest(top), Evidence: known, Rule: Rule{"newest", "The socket bound last on a specific IPv6 address gets everything."}}
}

func dragonfly() System {
	known := Evidence{Source, "sys/netinet/in_pcb.c, 5.9-dev of 2020-07"}
	return System{
		name: "dragonfly", title: "DragonFly",
		options: bsdOptions(),
		bind:    dragonflyBind, traffic: dragonflyTraffic,
		assignsPort: bsdAssigns(false, known),
		facts: []Fact{
			{Closing, "The accept queue and the SYN queue of a closed listener move to the last other member of its group (3.6).", Evidence{Source, "tcp_close, in_pcblocalgroup_last, soinherit, syncache_destroy"}},
			sameTuple("EADDRINUSE", Evidence{Source, "in_pcbconnect"}),
			{Restart, "On IPv4 accepted connections never prevent a bind (5.6, kern.ipc.soaccept_reuse). On IPv6 a new listener needs SO_REUSEADDR or SO_REUSEPORT.", known},
			{PortZero, "With a sharing option port 0 can return the port of connected sockets and of sockets on other addresses, never one of the same address.", known},
			{DualStack, "IPv6 sockets take IPv6 only (4.2, 727ccde8cc).", known},
			{Multicast, "SO_REUSEADDR on the second socket and either option on the first, or SO_REUSEPORT on both. TCP cannot be bound to a group.", known},
			{Security, "An overlapping bind of another user fails (4.2, 0323d5fde1). A socket of the same user with SO_REUSEADDR on a specific address gets the traffic of that address from a wildcard socket.", known},
			{Late, "An option of a bound socket counts as it is set when the next socket binds.", known},
		},
	}
}
