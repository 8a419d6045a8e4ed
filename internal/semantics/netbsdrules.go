package semantics

// NetBSD. in_pcbbind_port in sys/netinet/in_pcb.c, in6pcb_bind_port in
// sys/netinet6/in6_pcb.c. Measured on 7.99.34, 9.1 and 10.99.12.

func netbsdBind(a, b Binding) Answer {
	known := netbsdEvidence(a, b)
	if overlap(a, b) && netbsdHides(a) {
		return answer("", "hidden", "bind does not see accepted connections, which stay in the hash chain of port 0, except on ports that are multiples of 128.", known)
	}
	return bsdRules{evidence: always(known), tcpGroups: true, user: netbsdUser, finds: netbsdFinds, group: anyOption}.bind(a, b)
}

func netbsdEvidence(a, b Binding) Evidence {
	source := Evidence{Source, "sys/netinet/in_pcb.c in_pcbbind_port, sys/netinet6/in6_pcb.c in6pcb_bind_port"}
	switch {
	case measuredPair(a, b):
		return Evidence{Measured, "9.1, 10.99.12"}
	case measuredRestart(a, b) && a.User == b.User:
		return Evidence{Measured, "7.99.34"}
	case a.State == Listening && (a.multicast() || b.multicast()):
		source.Kind = Unsure // whether TCP can listen on a group is unverified
	}
	return source
}

// netbsdHides: syn_cache_get sets the port of an accepted socket and leaves it in the
// chain of port 0. There are 128 chains. IPv6 is unverified.
func netbsdHides(a Binding) bool {
	return a.connected() && !a.Dialed && a.v4() && a.Port%128 != 0
}

// netbsdUser is the test of users, for two AF_INET sockets only, not for ::ffff:a.b.c.d.
// Two wildcards pass it if the first has SO_REUSEPORT.
func netbsdUser(a, b Binding) bool {
	if a.mapped || b.mapped || !a.v4() || !b.v4() {
		return false
	}
	return !(a.wildcard() && b.wildcard() && a.Options.Has(Port))
}

// netbsdFinds: IPv4 sees a dual-stack ::, never as exactly its own address. IPv6 does
// not see IPv4.
func netbsdFinds(a, b Binding) bool {
	if sameFamily(a, b) {
		return bsdFinds(a, b)
	}
	return b.v4() && !sharing(b)
}

// netbsdTraffic: udp_send connects the socket for the datagram. That moves the socket to
// the head of its hash chain, as bind does (in_pcbstate). IPv6 does not.
func netbsdTraffic(to destination, sharing []Binding) Traffic {
	if to.proto != UDP || !to.addr.Is4() || to.addr.IsMulticast() {
		return bsdTraffic(to, sharing, newest, Evidence{Measured, "7.99.34"})
	}
	t := bsdTraffic(to, sharing, newest, Evidence{Measured, "9.1, 10.99.12"})
	t.Rule = Rule{"bound or sent last", "The UDP socket on an IPv4 address that was bound or sent a datagram last gets everything, a specific address before a wildcard."}
	return t
}

func netbsd() System {
	known := Evidence{Measured, "7.99.34"}
	return System{
		name: "netbsd", title: "NetBSD",
		options: bsdOptions(),
		bind:    netbsdBind, traffic: netbsdTraffic,
		assignsPort: bsdAssigns(true, known),
		facts: []Fact{
			{Closing, "Connections in a closed listener's accept queue are reset. A full queue does not spill over to another listener.", known},
			sameTuple("EADDRINUSE", known),
			{Restart, "A new listener with SO_REUSEADDR or SO_REUSEPORT binds while connections of the previous one remain. Without an option the bind fails only on ports that are multiples of 128. On loopback TIME_WAIT lasts 2 s.", known},
			{PortZero, "Port 0 never returns the same address and port twice, with any options. With a sharing option ::1 and :: can get the same port when the range is full.", known},
			{DualStack, "A :: without IPV6_V6ONLY binds alongside any IPv4 socket. An IPv4 socket binds alongside such a :: with SO_REUSEADDR or SO_REUSEPORT.", known},
			{Multicast, "SO_REUSEADDR or SO_REUSEPORT on both sockets, in any mix. Every member gets every datagram. TCP may be bound to a group. Before 7.99 only SO_REUSEADDR counted (1.119).", known},
			{Security, "On IPv4 an overlapping bind of another user fails, except for two wildcards with SO_REUSEPORT on both. IPv6 and ::ffff:a.b.c.d have no test of users. ::ffff:a.b.c.d gets no connection of an AF_INET socket (source: tcp_input). A newer TCP socket that is bound and does not listen yet drops connections. The second attempt of the client comes after 6 s from NetBSD (9.1, 10.99.12), after 1 s from Linux.", known},
			{Late, "An option of a bound socket counts as it is set or cleared when the next socket binds.", known},
		},
	}
}
