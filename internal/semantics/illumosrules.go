package semantics

// illumos. tcp_bindi in usr/src/uts/common/inet/tcp/tcp_bind.c, udp_do_bind in
// inet/udp/udp.c. Only the options of the socket that binds matter, except that
// SO_EXCLBIND on either refuses; users never do.

func illumosSecond(a, b Binding) Answer {
	known := Known{Source, "usr/src/uts/common/inet/tcp/tcp_bind.c tcp_bindi, inet/udp/udp.c udp_do_bind, 39707ee3"}
	same := a.Addr == b.Addr
	switch {
	case illumosExclusive(a, b):
		return answer("EADDRINUSE", "exclusive", "SO_EXCLBIND on either socket refuses the same address and any wildcard, of the other family, too.", known)
	case !sameFamily(a, b):
		return answer("", "families", "IPv4 and IPv6 sockets do not meet, dual-stack or not.", known)
	case !overlap(a, b):
		return apart(known)
	case b.Options.Has(Addr) && b.Proto == UDP:
		return answer("", "SO_REUSEADDR", "A UDP socket with SO_REUSEADDR is never refused, whatever the other set.", known)
	case b.Options.Has(Addr) && !(same && a.State <= Listening):
		return answer("", "SO_REUSEADDR", "A TCP socket with SO_REUSEADDR is refused only beside one bound or listening on the same address.", known)
	case b.Options.Has(Addr):
		return answer("EADDRINUSE", "same address", "A TCP socket that is bound or listens refuses its address, SO_REUSEADDR or not.", known)
	}
	return answer("EADDRINUSE", "overlap", "Without SO_REUSEADDR any overlapping bind is refused.", known)
}

// illumosExclusive: TCP looks at sockets up to ESTABLISHED only.
func illumosExclusive(a, b Binding) bool {
	if !a.Options.Has(Excl) && !b.Options.Has(Excl) {
		return false
	}
	if a.State > Established {
		return false
	}
	return a.Addr == b.Addr || a.wildcard() || b.wildcard()
}

// illumosTraffic: the first entry that matches wins, specific before wildcard,
// oldest first (ipclassifier's IPCL_HASH_INSERT macros).
func illumosTraffic(to destination, sharing []Binding) Traffic {
	known := Known{Source, "usr/src/uts/common/inet/ip/ipclassifier.c IPCL_HASH_INSERT"}
	if to.addr.IsMulticast() {
		return Traffic{Rule: Rule{"multicast", "Who gets a copy has not been read."}}
	}
	ready := func(b Binding) bool { return to.proto == UDP || b.State == Listening }
	top := best(to.addr, sharing, ready, specificFirst(to.addr))
	if len(choose(sharing, Binding.dual)) > 0 && to.addr.Is4() && len(top) > 0 && sharing[top[0]].wildcard() {
		known = Known{Inferred, "whether 0.0.0.0 comes before a dual-stack :: has not been read"}
	}
	return Traffic{Way: One, To: oldest(top), Known: known, Rule: Rule{"oldest", "The socket bound first gets everything, a specific address before a wildcard."}}
}

func illumos() System {
	known := Known{Source, "usr/src/uts/common/inet/tcp/tcp_bind.c tcp_bindi, inet/udp/udp.c udp_do_bind, 39707ee3"}
	return System{
		name: "illumos", title: "illumos",
		options: []optionData{
			{Addr, "SO_REUSEADDR", "", known},
			{Excl, "SO_EXCLBIND", "", known},
		},
		second: illumosSecond, listen: listens(known), traffic: illumosTraffic,
		connect: connects, sameTuple: Answer{Rule: Rule{"tuple", "Not known."}},
		closing: Closing{Text: "Not known; assume that the connections are lost."},
		facts: []Fact{
			{Restart, "A new listener with SO_REUSEADDR is bound beside what is left. SO_EXCLBIND refuses while established connections are left, not beside TIME_WAIT.", known},
			{PortZero, "IPv4 and IPv6 share one space of ports, and UDP ignores SO_REUSEADDR.", known},
			{DualStack, "0.0.0.0 and :: may both be bound, unless one sets SO_EXCLBIND.", known},
			{Security, "There is no test of users: a UDP socket with SO_REUSEADDR is admitted beside anyone's that has no SO_EXCLBIND; the older one keeps the traffic. A specific address with SO_REUSEADDR takes a wildcard's.", known},
		},
	}
}
