package semantics

import (
	"net/netip"
	"slices"
)

// Linux refuses a bind that overlaps another socket unless both share by the same option.
// Specific and wildcard addresses make no difference. Of three sockets not every pair is
// compared, see the fact about security.
//
// Source: inet_csk_bind_conflict in net/ipv4/inet_connection_sock.c (3.13, 4.4,
// 4.19, 6.1, 6.12, 6.18), udp_lib_lport_inuse in net/ipv4/udp.c.

func linuxBind(a, b Binding) Answer {
	known := linuxEvidence(a, b)
	bothAddr := a.Options.Has(Addr) && b.Options.Has(Addr)
	bothPort := a.Options.Has(Port) && b.Options.Has(Port)
	switch {
	case !linuxOverlap(a, b):
		return noOverlap(known)
	case bothAddr && (a.Proto == UDP || a.State != Listening):
		return answer("", "both SO_REUSEADDR", "Sockets that overlap may be bound when both set SO_REUSEADDR and neither is a listening TCP socket. Users do not matter.", known)
	case bothPort && a.User == b.User:
		return answer("", "both SO_REUSEPORT", "Sockets of one user that overlap may be bound when both set SO_REUSEPORT.", known)
	case bothPort && (a.State == TimeWait || a.State == FinWait2):
		// The kernel keeps no socket then, and no user.
		return answer("", "both SO_REUSEPORT, leftover", "A connection in TIME_WAIT or FIN_WAIT_2 whose socket had SO_REUSEPORT admits any user's SO_REUSEPORT.", known)
	case bothPort:
		return answer("EADDRINUSE", "user", "SO_REUSEPORT shares only between sockets that one user made, without an exception for root.", known)
	case bothAddr:
		return answer("EADDRINUSE", "listening", "Linux refuses any overlapping bind on the port of a listening socket unless both set SO_REUSEPORT under the same user.", known)
	}
	return answer("EADDRINUSE", "overlap", "Linux refuses a bind that overlaps another socket unless both set SO_REUSEADDR and neither listens, or both set SO_REUSEPORT under the same user.", known)
}

// linuxEvidence returns how the result for two sockets is known.
func linuxEvidence(a, b Binding) Evidence {
	const latest = "6.18.44"
	another := !a.wildcard() && !b.wildcard() && a.Addr != b.Addr
	groups := a.multicast() || b.multicast()
	switch {
	case another && a.multicast() && b.multicast() && a.v4() && b.v4() && a.Proto == UDP && !a.connected():
		return Evidence{Measured, latest}
	case another && !a.v4() && !b.v4(), another && a.multicast() && b.multicast(), a.multicast() && !a.v4(), b.multicast() && !b.v4(),
		a.connected() && (groups || a.wildcard() || b.mapped || a.Dialed && a.State != Established):
		return Evidence{Source, "inet_csk_bind_conflict, udp_lib_lport_inuse"}
	case a.connected():
		return Evidence{Measured, latest}
	case a.Proto == TCP && a.mapped && b.mapped && a.wildcard() && !b.wildcard():
		return Evidence{Measured, "5.10.223, 6.12.117, " + latest + "; 6.1.170 and 6.1.192 admit it in 21 cases"}
	}
	return Evidence{Measured, "5.10.223, 6.1.170, 6.1.192, 6.12.117, " + latest}
}

// linuxOverlap: a dual-stack socket that is connected to an IPv6 peer still has the
// kernel's mark for both families (sk_ipv6only is 0). So the test of bind treats it as
// a socket on an IPv4 address, which 0.0.0.0 overlaps. The address is 127.0.0.6
// (LOOPBACK4_IPV6), which UDP also refuses.
func linuxOverlap(a, b Binding) bool {
	both := a.connected() && !a.V6Only
	return overlap(a, b) || both && b.Addr == netip.IPv4Unspecified()
}

// linuxTraffic: compute_score in inet_hashtables.c and udp.c. A specific address scores
// higher than a wildcard, and for IPv4 0.0.0.0 higher than a dual-stack ::.
func linuxTraffic(to destination, sharing []Binding) Traffic {
	known := Evidence{Measured, "5.10, 6.1, 6.12, 6.18"}
	if to.addr.IsMulticast() {
		return copies(to.addr, sharing, known, "Every matching socket gets a copy. A wildcard socket also gets a copy for groups that it did not join, unless it clears IP_MULTICAST_ALL.")
	}
	ready := ready(to)
	top := best(to.addr, sharing, ready)
	if len(top) == 0 {
		return Traffic{Evidence: known, Rule: Rule{"none", "A TCP socket that does not listen gets nothing."}}
	}
	// A look-up visits the sockets from the newest to the oldest. IPv6 sockets with
	// SO_REUSEPORT come last, from the oldest to the newest (__inet_hash, udp_lib_get_port).
	// The first one with the best score decides: with SO_REUSEPORT its group shares, without
	// it gets everything.
	decides := newest(top)
	if !sharing[top[0]].v4() {
		plain := slices.DeleteFunc(slices.Clone(top), func(i int) bool { return sharing[i].Options.Has(Port) })
		decides = newest(append(oldest(top), plain...))
	}
	first := sharing[decides[0]]
	if !first.Options.Has(Port) {
		return Traffic{Way: One, To: decides, Evidence: known, Rule: Rule{"newest", "Without SO_REUSEPORT the socket bound last gets everything."}}
	}
	group := choose(sharing, func(b Binding) bool {
		return ready(b) && b.Options.Has(Port) && b.Addr == first.Addr && b.V6Only == first.V6Only && b.User == first.User
	})
	return Traffic{Way: Spread, To: group, Evidence: known, Rule: Rule{"SO_REUSEPORT group", "A hash of the addresses and ports chooses one of the SO_REUSEPORT sockets of an address, family and user. TCP sockets join when they listen."}}
}

// linuxAssigns: TCP looks for a port that no socket overlaps, whatever the options. UDP
// applies the rule of bind, and so can return the port of another socket.
func linuxAssigns(a, b Binding) Answer {
	known := Evidence{Measured, "6.18.44"}
	if a.Proto == UDP {
		return portZero(linuxBind(a, b).Err == "", known)
	}
	return portZero(!linuxOverlap(a, b), known)
}

// linuxDetour: a socket with SO_REUSEPORT that is admitted alongside another one of its
// user is not compared with the rest. So a first one that overlaps nothing admits a second
// one that overlaps. On TCP the kernel compares with the last socket that shared, and
// treats a wildcard of one family as equal to a dual-stack one (inet_csk_get_port,
// sk_reuseport_match). On UDP it stops at the first socket that shares: one that was bound
// without SO_REUSEPORT and got it later, or the newest, IPv6 last. If a port has more than
// ten sockets, it stops at the first one on the same address (udp_lib_lport_inuse,
// udp_lib_lport_inuse2). A dual-stack :: leaves no address for the first. The look-up then
// prefers a specific address, a socket connected to the sender (UDP), and a socket bound to
// the device of the packet, for IPv4 on TCP also to its CPU.
func linuxDetour(b Binding) bool {
	if b.Proto == UDP {
		return !b.dual()
	}
	// A connected socket, which comes first by its four-tuple, has a specific address.
	return b.wildcard() && !b.dual()
}

func linux() System {
	return System{
		name: "linux", title: "Linux 3.9 and later",
		options: map[Options]optionData{
			Addr: {"SO_REUSEADDR", "", Evidence{Measured, "5.10, 6.1, 6.12, 6.18"}},
			Port: {"SO_REUSEPORT", "3.9", Evidence{Source, "absent in 3.0.27 and 3.4, backported by vendors"}},
		},
		bind: linuxBind, traffic: linuxTraffic, assignsPort: linuxAssigns, detour: linuxDetour,
		facts: []Fact{
			{Closing, "Connections in a closed listener's accept queue are reset, unless net.ipv4.tcp_migrate_req is 1 (5.14). Then other listeners of the group get them.", Evidence{Measured, "5.10, 6.1, 6.12, 6.18; without effect on 5.10"}},
			sameTuple("EADDRNOTAVAIL", Evidence{Measured, "6.18.44"}),
			{Restart, "A new listener needs an option that the previous one also had. SO_REUSEADDR works alongside any leftover connection. SO_REUSEPORT works alongside an established connection of the same user, and alongside TIME_WAIT and FIN_WAIT_2 of any user. An accepted connection belongs to the user that called accept.", Evidence{Measured, "6.18.44"}},
			{PortZero, "TCP never returns a port that overlaps another socket, unless net.ipv4.ip_autobind_reuse is 1. UDP with SO_REUSEADDR or SO_REUSEPORT can return a port that another such socket has.", Evidence{Measured, "6.18.44"}},
			{DualStack, "A :: without IPV6_V6ONLY overlaps every binding of both families, in either order. A connection of such a :: with an IPv6 peer, dialed or accepted, also prevents a bind to 0.0.0.0. For IPv4 traffic 0.0.0.0 comes before a dual-stack ::.", Evidence{Measured, "5.10, 6.12, 6.18; 6.1.170 and 6.1.192 wrongly admit ::ffff:127.0.0.1 alongside ::ffff:0.0.0.0 on TCP in 21 of 2,352 cases"}},
			{Multicast, "The rules of UDP hold. Every matching socket gets a copy, with SO_REUSEADDR and with SO_REUSEPORT.", Evidence{Measured, "6.18.44"}},
			{Security, "SO_REUSEADDR has no test of users. Another user's UDP socket that also sets it shares the port, and the socket bound last gets the traffic. Of two bound TCP sockets the first to listen wins. SO_REUSEPORT requires one user: that of the socket call. fchown changes it, on TCP only before the bind. With several binds any user can bind alongside a socket that does not share. The kernel does not compare a socket with SO_REUSEPORT with every socket of the port, but with the last one that shared (TCP) or the first one that it finds (UDP). So a process first binds with SO_REUSEPORT where nothing overlaps (the wildcard of the other family, or on UDP another IPv4 address), and then where something overlaps. On UDP that socket gets all datagrams of another user's socket on a specific IPv4 address. From a UDP socket on a wildcard or IPv6 address it gets the datagrams of the device that it is bound to, or of the sender that it is connected to (6.18). From a TCP listener on 0.0.0.0 or an IPv6-only :: it gets the connections of the device, and for IPv4 of the CPU, that it is bound to. From one on a link-local address it gets those of the CPU. A TCP listener on another specific address keeps its connections while it lives, and cannot be bound again. A dual-stack :: is safe. So is any socket on a port that other users may not bind (net.ipv4.ip_unprivileged_port_start), except from a process with CAP_NET_BIND_SERVICE.", Evidence{Measured, "5.10, 6.1, 6.12, 6.18"}},
			{Late, "An option that is set after the bind counts for later binds. Clearing SO_REUSEPORT counts on UDP. On TCP the port still admits other sockets after that.", Evidence{Measured, "5.10, 6.1, 6.12, 6.18"}},
		},
	}
}

// linux38: before 3.9 there is no SO_REUSEPORT, and the rest is the same.
func linux38() System {
	later := Evidence{Inferred, "from later versions"}
	s := linux().inferred("linux-3.8", "Linux before 3.9", later)
	known := Evidence{Source, "3.0.27, 3.4"}
	s.options = map[Options]optionData{Addr: {"SO_REUSEADDR", "", known}}
	s.bind = func(a, b Binding) Answer {
		return linuxBind(a, b).knownBy(Evidence{Source, "inet_csk_bind_conflict, udp_lib_lport_inuse in 3.0.27 and 3.4"})
	}
	s.detour = nil
	s.facts = []Fact{
		{Closing, "Connections in a closed listener's accept queue are reset.", later},
		sameTuple("EADDRNOTAVAIL", later),
		{Restart, "A new listener needs SO_REUSEADDR, and the previous one must have had it.", known},
		{PortZero, "When the ports are exhausted, TCP sockets with SO_REUSEADDR can share one.", known},
	}
	return s
}

// android: GOOS=android runs Linux kernels.
func android() System {
	from := Evidence{Inferred, "from Linux, whose kernel it is"}
	s := linux().inferred("android", "Android", from)
	s.assignsPort = func(a, b Binding) Answer { return linuxAssigns(a, b).knownBy(from) }
	for i := range s.facts {
		if s.facts[i].Topic == Security {
			s.facts[i].Text += " Each app is a user. SO_REUSEPORT never shares between apps, SO_REUSEADDR on UDP does."
		}
	}
	return s
}
