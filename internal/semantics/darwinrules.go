package semantics

// macOS, iOS and their like: in_pcbbind in bsd/netinet/in_pcb.c, in6_pcbbind in
// bsd/netinet6/in6_pcb.c of XNU. The listeners of Network.framework (netns_reserve)
// also refuse a port. That test never compares two sockets.

// darwinUser is the test of users. SO_REUSESHAREUID on the first socket waives it. IPv4
// has no test between two wildcards. IPv6 admits two wildcards if the first has
// SO_REUSEPORT.
func darwinUser(a, b Binding) bool {
	if a.Options.Has(ShareUID) {
		return false
	}
	return !a.wildcard() || !b.wildcard() || !b.v4() && !a.Options.Has(Port)
}

func darwin(name, title string) System {
	known := Evidence{Source, "bsd/netinet/in_pcb.c, xnu-11417.101.15 (macOS 15.4)"}
	bind := Evidence{Source, "bsd/netinet/in_pcb.c in_pcbbind, xnu-11417.101.15 (macOS 15.4)"}
	options := bsdOptions()
	options[ShareUID] = optionData{"SO_REUSESHAREUID", "10.5", Evidence{Source, "xnu-1228"}}
	return System{
		name: name, title: title,
		options: options,
		bind:    bsdRules{evidence: always(bind), user: darwinUser, finds: dualFinds, group: addrIsPort}.bind,
		traffic: func(to destination, sharing []Binding) Traffic {
			return bsdTraffic(to, sharing, oldest, Evidence{Source, "in_pcblookup_hash_locked, in6_pcblookup_hash_locked, xnu-11417.101.15"})
		},
		assignsPort: bsdAssigns(true, known), // IPv4 from 10.15 on
		facts: []Fact{
			{Closing, "Connections in a closed listener's accept queue are reset.", Evidence{Source, "soclose, soabort"}},
			sameTuple("EADDRINUSE", Evidence{Source, "in_pcbconnect"}),
			{Restart, "A new listener with SO_REUSEADDR or SO_REUSEPORT binds while connections of the previous one remain. Without an option the bind fails.", known},
			{PortZero, "IPv4 never returns a port that overlaps another socket (10.15, xnu-6153). IPv6 with a sharing option compares the same address only.", known},
			{DualStack, "A :: without IPV6_V6ONLY binds alongside 0.0.0.0. 0.0.0.0 binds alongside such a :: only if both set SO_REUSEPORT.", known},
			{Multicast, "SO_REUSEADDR on the second socket and either option on the first, or SO_REUSEPORT on both. TCP cannot be bound to a group.", known},
			{Security, "An overlapping bind of another user fails, except for two wildcards with SO_REUSEPORT on both, or if the first socket sets SO_REUSESHAREUID. Of several wildcard sockets the oldest gets everything. A TCP socket that is bound and does not listen drops the connections that it is chosen for.", known},
			{Late, "An option of a bound socket counts as it is set when the next socket binds.", known},
		},
	}
}
