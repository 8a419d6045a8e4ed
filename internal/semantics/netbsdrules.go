package semantics

import "net/netip"

// NetBSD. in_pcbbind_port in sys/netinet/in_pcb.c, in6pcb_bind_port in
// sys/netinet6/in6_pcb.c. Measured on 7.99.34, 9.1 and 10.99.12.

func netbsdSecond(a, b Binding) Answer {
	known := Known{Source, "sys/netinet/in_pcb.c in_pcbbind_port, sys/netinet6/in6_pcb.c in6pcb_bind_port"}
	switch {
	case tried(a, b):
		known = Known{Measured, "9.1, 10.99.12"}
	case netbsdRestart(a, b):
		known = Known{Measured, "7.99.34"}
	case a.State == Listening && (a.multicast() || b.multicast()):
		known.How = Unsure // whether TCP listens on such a group at all was not read
	}
	shares := b.Options & Options(Port)
	if b.multicast() && b.Options != 0 {
		shares = Opts(Addr, Port)
	}
	switch {
	case !overlap(a, b):
		return apart(known)
	case netbsdHides(a):
		return answer("", "hidden", "bind does not see accepted connections, except on ports that 128 divides: they stay in the hash chain of port 0.", known)
	case netbsdUser(a, b):
		return bsdUser(known)
	case !netbsdLooks(a, b):
		return bsdBeside(b, known)
	case shares&a.Options != 0:
		return bsdShared(known)
	}
	return bsdConflict(b, Opts(Addr, Port), known)
}

// netbsdRestart says that it was measured what becomes of a new listener where an
// old one left a connection.
func netbsdRestart(a, b Binding) bool {
	return !a.Dialed && (a.State == Established || a.State == TimeWait || a.State == FinWait2) && a.User == b.User && a.v4() && !a.wildcard() && !a.multicast() &&
		!a.mapped && !b.mapped && (b.Addr == a.Addr || b.Addr == netip.IPv4Unspecified())
}

// netbsdHides: syn_cache_get sets the port of an accepted socket and leaves it in
// the chain of port 0; there are 128 chains. IPv6 was not tried.
func netbsdHides(a Binding) bool {
	return a.connected() && !a.Dialed && a.v4() && a.Port%128 != 0
}

// netbsdUser is the test of users, which AF_INET sockets make of each other only: not
// of ::ffff:a.b.c.d. Two wildcards pass it if the first has SO_REUSEPORT.
func netbsdUser(a, b Binding) bool {
	if a.mapped || b.mapped || !a.v4() || !b.v4() || b.multicast() || b.User == Root || a.User == b.User {
		return false
	}
	return !(a.wildcard() && b.wildcard() && a.Options.Has(Port))
}

// netbsdLooks: IPv4 sees a dual-stack ::, never as exactly its own address; IPv6
// does not see IPv4.
func netbsdLooks(a, b Binding) bool {
	if sameFamily(a, b) {
		return looks(a, b, Opts(Addr, Port))
	}
	return b.v4() && b.Options == 0
}

// netbsdTraffic: udp_send connects the socket for the datagram and so puts it at the
// head of its hash chain, as bind does (in_pcbstate). IPv6 does not.
func netbsdTraffic(to destination, sharing []Binding) Traffic {
	if to.proto != UDP || !to.addr.Is4() || to.addr.IsMulticast() {
		return bsdTraffic(to, sharing, newest, Known{Measured, "7.99.34"})
	}
	t := bsdTraffic(to, sharing, newest, Known{Measured, "9.1, 10.99.12"})
	t.Rule = Rule{"bound or sent last", "Of the UDP sockets on one IPv4 address the one that was bound or sent a datagram last gets everything, a specific address before a wildcard."}
	return t
}

func netbsd() System {
	known := Known{Measured, "7.99.34"}
	return System{
		name: "netbsd", title: "NetBSD",
		options: bsdOptions(),
		second:  netbsdSecond, listen: listens(known),
		traffic:  netbsdTraffic,
		handsOut: bsdHandsOut(true, known),
		connect:  func(b Binding) Answer { return as(known, connects(b)) }, sameTuple: tupleTaken("EADDRINUSE", known),
		closing: Closing{Reset, "Connections in a closed listener's queue are reset. A full queue does not spill over to another listener.", known},
		facts: []Fact{
			{Restart, "A new listener with SO_REUSEADDR or SO_REUSEPORT is always bound beside what is left; without one, too, unless 128 divides the port. On loopback TIME_WAIT lasts 2 s.", known},
			{PortZero, "The same address and port are never handed out twice, with any options; with a sharing option ::1 and :: may get the same port once the range is full.", known},
			{DualStack, "A :: without IPV6_V6ONLY is admitted beside any IPv4 socket; an IPv4 socket beside it needs SO_REUSEADDR or SO_REUSEPORT.", known},
			{Multicast, "SO_REUSEADDR or SO_REUSEPORT on both sockets, in any mix; every member gets every datagram. TCP may be bound to a group. Before the 7.99 line only SO_REUSEADDR was looked at (1.119).", known},
			{Security, "IPv4 refuses another user whatever overlaps, except a wildcard beside a wildcard with SO_REUSEPORT on both; IPv6 has no test of users, nor has ::ffff:a.b.c.d, which gets no IPv4 connection of an AF_INET socket's (source: tcp_input). A younger socket that is bound and does not listen yet swallows connections: the client's second attempt comes after 6 s from NetBSD (9.1, 10.99.12), after 1 s from Linux.", known},
			{Late, "An option of a bound socket counts as it is when the next one binds, set or cleared.", known},
		},
	}
}
