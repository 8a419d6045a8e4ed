package semantics

// aixSecond: little more is known than IBM's page on SO_REUSEPORT.
func aixSecond(a, b Binding) Answer {
	page := Known{Vendor, `IBM, "How to get the better listening performance ... SO_REUSEPORT"`}
	unsure := Known{Unsure, "its bind comes from 4.4BSD; not verified"}
	both := a.Options & b.Options
	switch {
	case a.connected() || a.User != b.User || !sameFamily(a, b) || a.multicast() || b.multicast():
		return notKnown("not known", "Not known.")
	case !overlap(a, b):
		return apart(unsure)
	case a.Addr == b.Addr && both.Has(Port):
		return answer("", "both SO_REUSEPORT", "Two sockets may have the same address if both set SO_REUSEPORT.", page)
	case a.Addr == b.Addr:
		if a.Proto == UDP {
			page.How = Unsure
		}
		return answer("EADDRINUSE", "same address", "Only SO_REUSEPORT on both admits a second socket to an address.", page)
	case b.Options != 0:
		return answer("", "beside", "A socket with a sharing option may be bound beside another address.", unsure)
	}
	return notKnown("not known", "Not known.")
}

func aix() System {
	known := Known{Vendor, `IBM, "How to get the better listening performance ... SO_REUSEPORT"`}
	return System{
		name: "aix", title: "AIX 7.2",
		options: []optionData{
			{Addr, "SO_REUSEADDR", "", Known{Source, "sys/socket.h"}},
			{Port, "SO_REUSEPORT", "", Known{Source, "sys/socket.h"}},
		},
		second: aixSecond, listen: listens(Known{Unsure, "its bind comes from 4.4BSD; not verified"}),
		traffic: func(to destination, sharing []Binding) Traffic {
			ready := func(b Binding) bool { return b.State == Listening }
			top := best(to.addr, sharing, ready, specificFirst(to.addr))
			if len(top) == 0 || !sharing[top[0]].Options.Has(Port) {
				return Traffic{Rule: Rule{"not known", "Not known."}}
			}
			return Traffic{Way: One, To: oldest(top), Known: known, Rule: Rule{"oldest", "The first listener gets everything, unless the administrator sets soreuseport_lb (7.2.5.0), which is 0 by default."}}
		},
		connect: connects, sameTuple: Answer{Rule: Rule{"tuple", "Not known."}},
		closing: Closing{Text: "Not known; assume that the connections are lost."},
	}
}

// goSecond is package net's own network for js and wasip1 (net_fake.go): a map
// from addresses to sockets, which knows of no overlap.
func goSecond(a, b Binding) Answer {
	known := Known{Source, "net/net_fake.go, go1.26.8"}
	if a.connected() {
		return notKnown("not known", "Not known.")
	}
	if a.Proto == TCP && a.State == Listening && !a.wildcard() && (a.Addr == b.Addr || b.wildcard()) {
		known = Known{Measured, "go1.26.8, node and wazero"}
	}
	if a.Addr != b.Addr {
		return answer("", "other address", "Only the same address is refused; a wildcard is one of its own.", known)
	}
	return answer("EADDRINUSE", "same address", "Only the same address is refused; a wildcard is one of its own.", known)
}

func js() System {
	return System{
		name: "js", title: "js", second: goSecond, listen: listens(Known{Source, "net/net_fake.go"}),
		traffic: nobodyKnows, connect: connects, sameTuple: Answer{Rule: Rule{"tuple", "Not known."}},
		facts: []Fact{{Security, "The network is inside the process. There are no options, and package net never calls a Control function.", Known{Measured, "go1.26.8"}}},
	}
}

func wasip1() System {
	s := js()
	s.name, s.title = "wasip1", "wasip1"
	return s
}

func plan9() System {
	return System{
		name: "plan9", title: "Plan 9",
		second: func(Binding, Binding) Answer {
			return notKnown("not known", "The kernel's rule has not been read.")
		},
		listen: func(Binding, Binding) Answer {
			return notKnown("not known", "The kernel's rule has not been read.")
		},
		traffic: nobodyKnows, connect: connects, sameTuple: Answer{Rule: Rule{"tuple", "Not known."}},
		facts: []Fact{{Security, "There are no socket options, and package net never calls a Control function.", Known{Source, "net/ipsock_plan9.go"}}},
	}
}

func nobodyKnows(destination, []Binding) Traffic {
	return Traffic{Rule: Rule{"not known", "Not known."}}
}
