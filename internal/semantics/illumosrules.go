package semantics

// illumos. tcp_bindi in usr/src/uts/common/inet/tcp/tcp_bind.c, udp_do_bind in
// inet/udp/udp.c. Only the options of the binding socket matter, except SO_EXCLBIND,
// which counts on either. Users never matter.

var illumosSource = Evidence{Source, "usr/src/uts/common/inet/tcp/tcp_bind.c tcp_bindi, inet/udp/udp.c udp_do_bind, 39707ee3"}

func illumosBind(a, b Binding) Answer {
	known := illumosSource
	switch {
	case illumosExclusive(a, b):
		return answer("EADDRINUSE", "exclusive", "SO_EXCLBIND on either socket prevents a bind to the same address and to any wildcard, also of the other family.", known)
	case !sameFamily(a, b):
		return answer("", "families", "IPv4 and IPv6 sockets do not conflict, dual-stack or not.", known)
	case !overlap(a, b):
		return noOverlap(known)
	case b.Options.Has(Addr) && b.Proto == UDP:
		return answer("", "SO_REUSEADDR", "A UDP socket with SO_REUSEADDR always binds, whatever the other socket set.", known)
	case b.Options.Has(Addr) && !(a.Addr == b.Addr && a.State <= Listening):
		return answer("", "SO_REUSEADDR", "A TCP socket with SO_REUSEADDR binds unless a socket is bound or listening on the same address.", known)
	case b.Options.Has(Addr):
		return answer("EADDRINUSE", "same address", "A TCP socket that is bound or listening prevents a bind to its address, also with SO_REUSEADDR.", known)
	}
	return answer("EADDRINUSE", "overlap", "Without SO_REUSEADDR any overlapping bind fails.", known)
}

// illumosExclusive: TCP looks at sockets up to ESTABLISHED only.
func illumosExclusive(a, b Binding) bool {
	return (a.Options | b.Options).Has(Excl) && a.State <= Established && (a.Addr == b.Addr || a.wildcard() || b.wildcard())
}

// illumosTraffic: the first entry that matches wins, specific before wildcard,
// oldest first (ipclassifier's IPCL_HASH_INSERT macros).
func illumosTraffic(to destination, sharing []Binding) Traffic {
	known := Evidence{Source, "usr/src/uts/common/inet/ip/ipclassifier.c IPCL_HASH_INSERT"}
	if to.addr.IsMulticast() {
		return Traffic{Rule: Rule{"multicast", "Which sockets get a copy is unverified."}}
	}
	top := best(to.addr, sharing, ready(to))
	if len(choose(sharing, Binding.dual)) > 0 && to.addr.Is4() && len(top) > 0 && sharing[top[0]].wildcard() {
		known = Evidence{Inferred, "whether 0.0.0.0 comes before a dual-stack :: is unverified"}
	}
	return Traffic{Way: One, To: oldest(top), Evidence: known, Rule: Rule{"oldest", "The socket bound first gets everything, a specific address before a wildcard."}}
}

func illumos() System {
	known := illumosSource
	return System{
		name: "illumos", title: "illumos",
		options: map[Options]optionData{Addr: {"SO_REUSEADDR", "", known}, Excl: {"SO_EXCLBIND", "", known}},
		bind:    illumosBind, traffic: illumosTraffic,
		facts: []Fact{
			{Restart, "A new listener with SO_REUSEADDR binds while connections of the previous one remain. SO_EXCLBIND prevents the bind while established connections remain, not during TIME_WAIT.", known},
			{PortZero, "IPv4 and IPv6 share one port space, and UDP with port 0 ignores SO_REUSEADDR.", known},
			{DualStack, "0.0.0.0 and :: may both be bound, unless one sets SO_EXCLBIND.", known},
			{Security, "There is no test of users. A UDP socket with SO_REUSEADDR binds alongside a socket of any user without SO_EXCLBIND, and the older socket keeps the traffic. A socket with SO_REUSEADDR on a specific address gets the traffic of that address from a wildcard socket.", known},
		},
	}
}
