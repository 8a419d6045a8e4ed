package semantics

// OpenBSD. in_pcbbind_locked and in_pcbaddrisavail_lock in sys/netinet/in_pcb.c.
// IPv6 sockets never take IPv4 traffic, and the two families never conflict.

// openbsdEvidence: tcp_bind does not refuse groups. Whether such a socket can listen is
// unverified.
func openbsdEvidence(a, b Binding) Evidence {
	known := Evidence{Source, "sys/netinet/in_pcb.c in_pcbaddrisavail_lock, 1.320 (7.8)"}
	if a.Proto == TCP && (a.multicast() || b.multicast()) && (a.State == Listening || b.State == Listening) {
		known.Kind = Unsure
	}
	return known
}

func openbsd() System {
	known := Evidence{Source, "sys/netinet/in_pcb.c, 1.320 (7.8)"}
	return System{
		name: "openbsd", title: "OpenBSD",
		options: bsdOptions(),
		bind:    bsdRules{evidence: openbsdEvidence, tcpGroups: true, ipv6Only: true, finds: bsdFinds, group: anyOption}.bind,
		// A look-up moves the socket to the front of its chain. A resize of the table
		// reverses the order.
		traffic: func(to destination, sharing []Binding) Traffic {
			return bsdTraffic(to, ipv6Only(sharing...), newest, Evidence{Source, "in_pcbhash_lookup, 1.320 (7.8)"})
		},
		assignsPort: bsdAssigns(false, known),
		facts: []Fact{
			{Closing, "Connections in a closed listener's accept queue are reset.", Evidence{Source, "soclose, soabort"}},
			sameTuple("EADDRINUSE", Evidence{Source, "in_pcbconnect"}),
			{Restart, "A new listener with SO_REUSEADDR or SO_REUSEPORT binds while connections of the previous one remain. Without an option the bind fails.", known},
			{PortZero, "With a sharing option port 0 can return the port of connected sockets and of sockets on other addresses, never one of the same address.", known},
			{DualStack, "IPv6 sockets take IPv6 only, and ::ffff:a.b.c.d is refused (EADDRNOTAVAIL).", known},
			{Multicast, "SO_REUSEADDR or SO_REUSEPORT on both sockets, in any mix. TCP may be bound to a group.", known},
			{Security, "An overlapping bind of another user fails. A socket of the same user with SO_REUSEADDR on a specific address gets the traffic of that address from a wildcard socket.", known},
			{Late, "An option of a bound socket counts as it is set when the next socket binds.", known},
		},
	}
}
