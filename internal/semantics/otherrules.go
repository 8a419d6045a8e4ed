package semantics

// aixBind: the only evidence is IBM's page on SO_REUSEPORT.
func aixBind(a, b Binding) Answer {
	page := Evidence{Vendor, `IBM, "How to get the better listening performance ... SO_REUSEPORT"`}
	unsure := Evidence{Unsure, "its bind comes from 4.4BSD, unverified"}
	both := a.Options & b.Options
	switch {
	case a.connected() || a.User != b.User || !sameFamily(a, b) || a.multicast() || b.multicast():
	case !overlap(a, b):
		return noOverlap(unsure)
	case a.Addr == b.Addr && both.Has(Port):
		return answer("", "both SO_REUSEPORT", "Two sockets may have the same address if both set SO_REUSEPORT.", page)
	case a.Addr == b.Addr:
		if a.Proto == UDP {
			page.Kind = Unsure
		}
		return answer("EADDRINUSE", "same address", "A second socket binds an address only if both set SO_REUSEPORT.", page)
	case b.Options != 0:
		return answer("", "alongside", "A socket with a sharing option binds alongside a socket on another address.", unsure)
	}
	return notKnown("unverified", "Unverified.")
}

func aix() System {
	known := Evidence{Vendor, `IBM, "How to get the better listening performance ... SO_REUSEPORT"`}
	return System{
		name: "aix", title: "AIX 7.2",
		options: map[Options]optionData{
			Addr: {"SO_REUSEADDR", "", Evidence{Source, "sys/socket.h"}},
			Port: {"SO_REUSEPORT", "", Evidence{Source, "sys/socket.h"}},
		},
		bind: aixBind,
		traffic: func(to destination, sharing []Binding) Traffic {
			ready := func(b Binding) bool { return b.State == Listening }
			top := best(to.addr, sharing, ready)
			if len(top) == 0 || !sharing[top[0]].Options.Has(Port) {
				return Traffic{Rule: Rule{"unverified", "Only TCP listeners with SO_REUSEPORT are documented."}}
			}
			return Traffic{Way: One, To: oldest(top), Evidence: known, Rule: Rule{"oldest", "The first listener gets everything, unless the administrator sets soreuseport_lb (7.2.5.0), which is 0 by default."}}
		},
	}
}

// goBind is the network of package net for js and wasip1 (net_fake.go): a map from
// addresses to sockets, without overlap.
func goBind(a, b Binding) Answer {
	known := Evidence{Source, "net/net_fake.go, go1.26.8"}
	if a.connected() {
		return notKnown("unverified", "Unverified.")
	}
	if a.Proto == TCP && a.State == Listening && !a.wildcard() && (a.Addr == b.Addr || b.wildcard()) {
		known = Evidence{Measured, "go1.26.8, node and wazero"}
	}
	if a.Addr != b.Addr {
		return answer("", "other address", "Only a bind to the same address fails, and a wildcard counts as an address of its own.", known)
	}
	return answer("EADDRINUSE", "same address", "Only a bind to the same address fails, and a wildcard counts as an address of its own.", known)
}

// fakeNetwork is a system whose network is inside the process.
func fakeNetwork(name string) System {
	return System{
		name: name, title: name, bind: goBind,
		facts: []Fact{{Security, "The network is inside the process. There are no options, and package net never calls a Control function.", Evidence{Measured, "go1.26.8"}}},
	}
}

func plan9() System {
	return System{
		name: "plan9", title: "Plan 9",
		bind: func(Binding, Binding) Answer {
			return notKnown("unverified", "The kernel's rule is unverified.")
		},
		facts: []Fact{{Security, "There are no socket options, and package net never calls a Control function.", Evidence{Source, "net/ipsock_plan9.go"}}},
	}
}
