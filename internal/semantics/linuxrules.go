package semantics

import "net/netip"

// Linux asks one question: do the two overlap, and if so, do both share by the
// same option? The address being specific or a wildcard makes no difference. Of
// three sockets it does not ask about each pair; see the fact about security.
//
// Source: inet_csk_bind_conflict in net/ipv4/inet_connection_sock.c (3.13, 4.4,
// 4.19, 6.1, 6.12, 6.18), udp_lib_lport_inuse in net/ipv4/udp.c.

func linuxSecond(a, b Binding) Answer {
	known := linuxKnown(a, b)
	bothAddr := a.Options.Has(Addr) && b.Options.Has(Addr)
	bothPort := a.Options.Has(Port) && b.Options.Has(Port)
	switch {
	case !linuxOverlap(a, b):
		return apart(known)
	case bothAddr && (a.Proto == UDP || a.State != Listening):
		return answer("", "both SO_REUSEADDR", "Sockets that overlap may be bound when both set SO_REUSEADDR and neither is a listening TCP socket; users do not matter.", known)
	case bothPort && a.User == b.User:
		return answer("", "both SO_REUSEPORT", "Sockets of one user that overlap may be bound when both set SO_REUSEPORT.", known)
	case bothPort && (a.State == TimeWait || a.State == FinWait2):
		// What the kernel keeps then is no socket and has no user.
		return answer("", "both SO_REUSEPORT, leftover", "A connection in TIME_WAIT or FIN_WAIT_2 whose socket had SO_REUSEPORT admits any user's SO_REUSEPORT.", known)
	case bothPort:
		return answer("EADDRINUSE", "user", "SO_REUSEPORT shares only between sockets that one user made; root is no exception.", known)
	case bothAddr:
		return answer("EADDRINUSE", "listening", "Linux refuses any overlapping bind beside a listening socket unless both set SO_REUSEPORT under the same user.", known)
	}
	return answer("EADDRINUSE", "overlap", "Linux refuses a bind that overlaps another socket unless both set SO_REUSEADDR and neither listens, or both set SO_REUSEPORT under the same user.", known)
}

// linuxKnown says how it is known what becomes of two sockets.
func linuxKnown(a, b Binding) Known {
	const latest = "6.18.44"
	another := !a.wildcard() && !b.wildcard() && a.Addr != b.Addr
	groups := a.multicast() || b.multicast()
	switch {
	case another && a.multicast() && b.multicast() && a.v4() && b.v4() && a.Proto == UDP && !a.connected():
		return Known{Measured, latest}
	case another && !a.v4() && !b.v4(), another && a.multicast() && b.multicast(), a.multicast() && !a.v4(), b.multicast() && !b.v4(),
		a.connected() && (groups || a.wildcard() || b.mapped || a.Dialed && a.State != Established):
		return Known{Source, "inet_csk_bind_conflict, udp_lib_lport_inuse"}
	case a.connected():
		return Known{Measured, latest}
	case a.Proto == TCP && a.mapped && b.mapped && a.wildcard() && !b.wildcard():
		return Known{Measured, "5.10.223, 6.12.117, " + latest + "; 6.1.170 and 6.1.192 admit it in 21 cases"}
	}
	return Known{Measured, "5.10.223, 6.1.170, 6.1.192, 6.12.117, " + latest}
}

// linuxOverlap: a dual-stack socket that is connected to an IPv6 peer still has the
// kernel's mark for both families (sk_ipv6only is 0), and so the test of bind takes
// it for a socket on some IPv4 address, which 0.0.0.0 overlaps. (It is 127.0.0.6,
// LOOPBACK4_IPV6: on UDP that one is refused, too.)
func linuxOverlap(a, b Binding) bool {
	both := a.connected() && !a.V6Only
	return overlap(a, b) || both && b.Addr == netip.IPv4Unspecified()
}

// linuxListen: listen repeats the test of bind.
func linuxListen(a, b Binding) Answer {
	return at("listen", linuxSecond(a, b))
}

// linux38Second: before 3.9 there is no SO_REUSEPORT, and the rest is the same.
func linux38Second(a, b Binding) Answer {
	return as(Known{Source, "inet_csk_bind_conflict, udp_lib_lport_inuse in 3.0.27 and 3.4"}, linuxSecond(a, b))
}

// linuxTraffic: compute_score in inet_hashtables.c and udp.c. A socket on a
// specific address scores over one on the wildcard, IPv4's wildcard over a
// dual-stack one for IPv4 and an IPv6-only wildcard over it for IPv6.
func linuxTraffic(to destination, sharing []Binding) Traffic {
	known := Known{Measured, "5.10, 6.1, 6.12, 6.18"}
	if to.addr.IsMulticast() {
		return Traffic{
			Way: Copies, To: choose(sharing, func(b Binding) bool { return b.covers(to.addr) }), Known: known,
			Rule: Rule{"multicast", "Every matching socket gets a copy; a wildcard socket also of groups that it did not join, unless it clears IP_MULTICAST_ALL."},
		}
	}
	ready := func(b Binding) bool { return to.proto == UDP || b.State == Listening }
	top := best(to.addr, sharing, ready, linuxRank())
	if len(top) == 0 {
		return Traffic{Known: known, Rule: Rule{"nobody", "A TCP socket that does not listen gets nothing."}}
	}
	// Look-ups go from the newest to the oldest. The first of the best score
	// decides: with SO_REUSEPORT its group shares, without it takes all.
	last := sharing[top[len(top)-1]]
	if !last.Options.Has(Port) {
		return Traffic{Way: One, To: newest(top), Known: known, Rule: Rule{"newest", "Without SO_REUSEPORT the socket that was bound last gets everything."}}
	}
	group := choose(sharing, func(b Binding) bool {
		return ready(b) && b.Options.Has(Port) && b.Addr == last.Addr && b.V6Only == last.V6Only && b.User == last.User
	})
	way := Spread
	if len(group) == 1 {
		way = One
	}
	return Traffic{Way: way, To: group, Known: known, Rule: Rule{"SO_REUSEPORT group", "A hash of the addresses and ports chooses among the SO_REUSEPORT sockets of one address, family and user; TCP sockets join when they listen."}}
}

func linuxRank() func(Binding) int {
	return func(b Binding) int {
		switch {
		case !b.wildcard():
			return 2
		case b.dual():
			return 0
		}
		return 1
	}
}

// linuxHandsOut: TCP looks for a port that nobody overlaps, whatever the options.
// UDP asks the rule of bind, and so may return what another socket has.
func linuxHandsOut(a, b Binding) Answer {
	known := Known{Measured, "6.18.44"}
	if a.Proto == UDP {
		return given(linuxSecond(a, b).Err == "", known)
	}
	return given(!linuxOverlap(a, b), known)
}

// linuxDetour: a socket with SO_REUSEPORT that is admitted beside another one of its
// user is not compared with the rest, so one that overlaps nothing lets in a second
// that does. On TCP the kernel compares with the last one that shared, and takes
// a wildcard of one family for equal to a dual-stack one (inet_csk_get_port,
// sk_reuseport_match). On UDP it stops at the first one that shares, which is one that
// was bound without SO_REUSEPORT and got it later, or the newest, where IPv6's come
// last; among more than ten sockets of a port, at the first one of the same address
// (udp_lib_lport_inuse, udp_lib_lport_inuse2). A dual-stack :: leaves no address for
// the first. The look-up then prefers a specific address, a socket that is connected to
// the sender (UDP), and one that is bound to the device, for IPv4 on TCP also to the
// CPU, that the packet comes from.
func linuxDetour(b Binding) bool {
	if b.Proto == UDP {
		return !b.dual()
	}
	// A connected socket comes first, by its four-tuple.
	return !b.connected() && b.wildcard() && !b.dual()
}

func linux() System {
	return System{
		name: "linux", title: "Linux 3.9 and later",
		options: []optionData{
			{Addr, "SO_REUSEADDR", "", Known{Measured, "5.10, 6.1, 6.12, 6.18"}},
			{Port, "SO_REUSEPORT", "3.9", Known{Source, "absent in 3.0.27 and 3.4; vendors have backported it, so set it rather than look at the version"}},
		},
		second: linuxSecond, listen: linuxListen, traffic: linuxTraffic, handsOut: linuxHandsOut,
		connect: connects, sameTuple: tupleTaken("EADDRNOTAVAIL", Known{Measured, "6.18.44"}), detour: linuxDetour,
		closing: Closing{Reset, "Connections in a closed listener's queue are reset, unless net.ipv4.tcp_migrate_req is 1 (5.14): then one other listener of the group gets them all.", Known{Measured, "5.10, 6.1, 6.12, 6.18; without effect on 5.10"}},
		facts: []Fact{
			{Restart, "A new listener needs an option that the old one had, too: SO_REUSEADDR beside any leftover connection; SO_REUSEPORT beside an established one of the same user, and beside TIME_WAIT and FIN_WAIT_2 of anyone. An accepted connection belongs to the user who called accept.", Known{Measured, "6.18.44"}},
			{PortZero, "TCP never hands out a port that overlaps another's, unless net.ipv4.ip_autobind_reuse is 1. UDP with SO_REUSEADDR or SO_REUSEPORT may hand out a port that another such socket has.", Known{Measured, "6.18.44"}},
			{DualStack, "A :: without IPV6_V6ONLY overlaps every binding of both families, in either order. Connected to an IPv6 peer, or accepted from one, its socket still keeps 0.0.0.0 off.", Known{Measured, "5.10, 6.12, 6.18; 6.1.170 and 6.1.192 wrongly admit ::ffff:127.0.0.1 beside ::ffff:0.0.0.0 on TCP in 21 of 2,352 cases"}},
			{Multicast, "The rules of UDP hold; every matching socket gets a copy, whether it shares by SO_REUSEADDR or SO_REUSEPORT.", Known{Measured, "6.18.44"}},
			{Security, "SO_REUSEADDR has no test of users: another user's UDP socket that sets it, too, shares the port and, bound last, takes the traffic; of two bound TCP sockets the first to listen wins. SO_REUSEPORT needs the same user, which is the one that made the socket; fchown changes it. But with three sockets it lets anyone in beside one that does not share: whoever has bound a port with SO_REUSEPORT where nothing overlaps (the wildcard of the other family; on UDP another IPv4 address) may then bind it with SO_REUSEPORT where something does. On UDP that takes all datagrams of another user's socket on an IPv4 address, or on a wildcard or IPv6 one by a socket that is bound to the device or connected to the sender (6.18). On TCP a socket on 0.0.0.0 or an IPv6-only :: loses its connections to one that is bound to the device, and for IPv4 to the CPU; one on a specific address keeps them while it lives, and cannot be bound again. A dual-stack :: is safe, and so is any socket on a port that other users may not bind (net.ipv4.ip_unprivileged_port_start); a process with CAP_NET_BIND_SERVICE may.", Known{Measured, "5.10, 6.1, 6.12, 6.18"}},
			{Late, "An option set after the bind counts for later binds. Clearing SO_REUSEPORT on TCP does not: the port goes on admitting; on UDP it does.", Known{Measured, "5.10, 6.1, 6.12, 6.18"}},
		},
	}
}

func linux38() System {
	s := linux()
	s.name, s.title = "linux-3.8", "Linux before 3.9"
	s.options = s.options[:1]
	s.options[0].known = Known{Source, "3.0.27, 3.4"}
	s.second, s.detour = linux38Second, nil // there is no SO_REUSEPORT
	s.listen = func(a, b Binding) Answer { return at("listen", linux38Second(a, b)) }
	known := Known{Source, "3.0.27, 3.4"}
	s.traffic = func(to destination, sharing []Binding) Traffic {
		t := linuxTraffic(to, sharing)
		t.Known = Known{Inferred, "from later versions"}
		return t
	}
	s.sameTuple.Known = Known{Inferred, "from later versions"}
	s.handsOut = nil
	s.closing = Closing{Reset, "Connections in a closed listener's queue are reset.", Known{Inferred, "from later versions"}}
	s.facts = []Fact{
		{Restart, "A new listener needs SO_REUSEADDR, and the old one must have had it.", known},
		{PortZero, "When the ports are exhausted, TCP sockets with SO_REUSEADDR may share one.", known},
	}
	return s
}

// android: GOOS=android runs Linux kernels. Each app has a user of its own.
func android() System {
	s := linux()
	s.name, s.title = "android", "Android"
	known := Known{Inferred, "from Linux, whose kernel it is"}
	for i := range s.options {
		s.options[i].known = known
	}
	s.second = func(a, b Binding) Answer { return as(known, linuxSecond(a, b)) }
	s.listen = func(a, b Binding) Answer { return as(known, linuxListen(a, b)) }
	s.traffic = func(to destination, sharing []Binding) Traffic {
		t := linuxTraffic(to, sharing)
		t.Known = known
		return t
	}
	s.sameTuple = as(known, s.sameTuple)
	s.handsOut = func(a, b Binding) Answer { return as(known, linuxHandsOut(a, b)) }
	s.closing.Known = known
	for i := range s.facts {
		s.facts[i].Known = known
		if s.facts[i].Topic == Security {
			s.facts[i].Text += " Each app is a user: SO_REUSEPORT never shares between apps, SO_REUSEADDR on UDP does."
		}
	}
	return s
}
