package semantics

// macOS, iOS and their like: in_pcbbind in bsd/netinet/in_pcb.c, in6_pcbbind in
// bsd/netinet6/in6_pcb.c of XNU. Network.framework's own listeners (netns_reserve)
// refuse a port as well; sockets do not conflict with each other there.

func darwinSecond(a, b Binding) Answer {
	known := Known{Source, "bsd/netinet/in_pcb.c in_pcbbind, xnu-11417.101.15 (macOS 15.4)"}
	if answer, ok := tcpMulticast(a, b, known); ok {
		return answer
	}
	switch {
	case !overlap(a, b):
		return apart(known)
	case darwinUser(a, b):
		return bsdUser(known)
	case !darwinLooks(a, b):
		return bsdBeside(b, known)
	case addrMeansPort(b)&a.Options != 0:
		return bsdShared(known)
	}
	return bsdConflict(b, Opts(Addr, Port), known)
}

// darwinUser is the test of users. SO_REUSESHAREUID on the first socket waives
// it, and IPv4 makes none between two wildcards; IPv6's passes two wildcards if
// the first has SO_REUSEPORT.
func darwinUser(a, b Binding) bool {
	if b.multicast() || b.User == Root || a.User == b.User || a.Options.Has(ShareUID) {
		return false
	}
	if !a.wildcard() || !b.wildcard() {
		return true
	}
	return !b.v4() && !a.Options.Has(Port)
}

// darwinLooks: as FreeBSD's.
func darwinLooks(a, b Binding) bool {
	sharing := Opts(Addr, Port)
	if sameFamily(a, b) {
		return looks(a, b, sharing)
	}
	if a.wildcard() && b.wildcard() {
		return b.v4()
	}
	return b.Options&sharing == 0
}

func darwin() System {
	known := Known{Source, "bsd/netinet/in_pcb.c, xnu-11417.101.15 (macOS 15.4)"}
	return System{
		name: "darwin", title: "macOS",
		options: append(bsdOptions(), optionData{ShareUID, "SO_REUSESHAREUID", "10.5", Known{Source, "xnu-1228"}}),
		second:  darwinSecond, listen: listens(known),
		traffic: func(to destination, sharing []Binding) Traffic {
			return bsdTraffic(to, sharing, oldest, Known{Source, "in_pcblookup_hash_locked, in6_pcblookup_hash_locked, xnu-11417.101.15"})
		},
		handsOut: bsdHandsOut(true, known), // IPv4 from 10.15 on
		connect:  connects, sameTuple: tupleTaken("EADDRINUSE", Known{Source, "in_pcbconnect"}),
		closing: Closing{Reset, "Connections in a closed listener's queue are reset.", Known{Source, "soclose, soabort"}},
		facts: []Fact{
			{Restart, "A new listener with SO_REUSEADDR or SO_REUSEPORT is bound beside what is left; without one it is refused.", known},
			{PortZero, "IPv4 never hands out a port that overlaps another's (10.15, xnu-6153); IPv6 with a sharing option looks at the same address only.", known},
			{DualStack, "A :: without IPV6_V6ONLY is admitted beside 0.0.0.0, never the other way round unless both set SO_REUSEPORT.", known},
			{Multicast, "SO_REUSEADDR on the second socket and either option on the first, or SO_REUSEPORT on both; TCP cannot be bound to a group.", known},
			{Security, "Another user is refused whatever overlaps, except a wildcard beside a wildcard with SO_REUSEPORT on both, or where the first sets SO_REUSESHAREUID. Of several wildcard sockets the oldest gets everything. A socket that is bound and does not listen drops what it is chosen for.", known},
			{Late, "An option of a bound socket counts as it is when the next one binds.", known},
		},
	}
}

func ios() System {
	s := darwin()
	s.name, s.title = "ios", "iOS"
	return s
}
