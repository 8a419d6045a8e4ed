package semantics

// Windows. Microsoft, "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE": two tables,
// which do not tell bound from listening nor TCP from UDP. What they leave out is
// taken from Wine's conformance tests, whose expectations were recorded on
// Windows (dlls/ws2_32/tests/sock.c, tests_exclusive).

const (
	winsockPage  = `"Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE"`
	winsockTests = "Wine's dlls/ws2_32/tests/sock.c tests_exclusive, recorded on Windows"
)

// winsockBoth: the two options contradict each other, in either order.
func winsockBoth(a, b Binding) (Answer, bool) {
	both := func(b Binding) bool { return b.Options.Has(Addr) && b.Options.Has(Excl) }
	if !both(a) && !both(b) {
		return Answer{}, false
	}
	return Answer{Err: "WSAEINVAL", Step: "setsockopt", First: both(a), Known: Known{Source, "Wine's test_reuseaddr; libtorrent #1981"},
		Rule: Rule{"both", "SO_REUSEADDR and SO_EXCLUSIVEADDRUSE exclude each other: setting the second one fails."}}, true
}

// windowsSecond is the rule of Server 2003 and later.
func windowsSecond(a, b Binding) Answer {
	if answer, ok := winsockBoth(a, b); ok {
		return answer
	}
	known := Known{Vendor, winsockPage}
	switch {
	case a.multicast() || b.multicast():
		return notKnown("multicast", "The page says nothing of multicast addresses.")
	case !overlap(a, b):
		return apart(known)
	case a.connected() && !a.Dialed:
		return windowsLeftover(a)
	case !sameFamily(a, b):
		return windowsDual(a, b)
	}
	return windowsTable(a, b, known)
}

// windowsTable is the page's second table and its third.
func windowsTable(a, b Binding, known Known) Answer {
	bothAddr := a.Options.Has(Addr) && b.Options.Has(Addr)
	switch {
	case bothAddr:
		return answer("", "both SO_REUSEADDR", "Sockets may overlap if both set SO_REUSEADDR; which of those on one address gets the traffic is undefined.", known)
	case a.wildcard() == b.wildcard() && b.Options.Has(Addr):
		return answer("WSAEACCES", "taking", "SO_REUSEADDR takes no address from a socket that did not set it.", known)
	case a.wildcard() == b.wildcard():
		if a.Options.Has(Addr) && b.Options == 0 && !a.wildcard() {
			known = Known{Unsure, winsockPage + `; "Sharing Transport Addresses" says access denied`}
		}
		return answer("WSAEADDRINUSE", "same address", "An address that a socket has is refused to a second one.", known)
	case b.wildcard() && b.Options.Has(Excl):
		return answer("WSAEADDRINUSE", "exclusive wildcard", "A wildcard with SO_EXCLUSIVEADDRUSE is refused beside any specific address.", known)
	case b.wildcard():
		return answer("", "wildcard", "A wildcard is admitted beside a specific address, and gets nothing of it.", known)
	case a.Options.Has(Excl):
		return answer("WSAEACCES", "exclusive", "A wildcard socket with SO_EXCLUSIVEADDRUSE refuses every specific address.", known)
	case a.User == b.User:
		return answer("", "same user", "A specific address is admitted beside the same user's wildcard, and takes its traffic.", known)
	}
	return answer("WSAEACCES", "user", "A specific address is refused beside another user's wildcard unless both set SO_REUSEADDR.", known)
}

// windowsDual is for a dual-stack wildcard and an IPv4 socket. The page says that
// the port is taken on both stacks; the tests admit what it would refuse.
func windowsDual(a, b Binding) Answer {
	tests := Known{Source, winsockTests}
	switch {
	case a.dual() && a.Options.Has(Excl):
		return answer("WSAEACCES", "exclusive", "A dual-stack wildcard with SO_EXCLUSIVEADDRUSE refuses every IPv4 address.", tests)
	case a.dual() && a.Options == 0 && b.wildcard() && !b.Options.Has(Addr):
		return answer("", "two wildcards", "0.0.0.0 is admitted beside a dual-stack :: without options.", tests)
	case a.Options == 0 && !a.wildcard() && b.Options.Has(Excl):
		return answer("WSAEADDRINUSE", "exclusive wildcard", "A dual-stack wildcard with SO_EXCLUSIVEADDRUSE is refused beside an IPv4 address.", tests)
	case a.Options.Has(Excl):
		return windowsTable(a, b, Known{Vendor, winsockPage + ": a dual-stack socket takes the port on both stacks"})
	}
	return windowsTable(a, b, Known{Unsure, winsockPage + "; the tests contradict it in a similar case"})
}

// windowsLeftover is for what an accepted connection leaves.
func windowsLeftover(a Binding) Answer {
	switch {
	case a.Options.Has(Excl):
		return notKnown("leftover", "The page says that a port with SO_EXCLUSIVEADDRUSE is held until its accepted connections are gone; two programs saw otherwise.")
	case a.State == TimeWait || a.State == FinWait2:
		return answer("", "leftover", "A connection in TIME_WAIT does not stand in the way of a bind.", Known{Inferred, "package net relies on it (sockopt_windows.go)"})
	}
	return notKnown("leftover", "What an accepted connection does to a bind is not documented.")
}

// windows2000Second is the rule before Server 2003.
func windows2000Second(a, b Binding) Answer {
	if answer, ok := winsockBoth(a, b); ok {
		return answer
	}
	known := Known{Vendor, winsockPage}
	switch {
	case a.multicast() || b.multicast() || !sameFamily(a, b):
		return notKnown("not known", "The page says nothing of it.")
	case !overlap(a, b):
		return apart(known)
	case a.connected() && !a.Dialed:
		return windowsLeftover(a)
	case b.Options.Has(Addr) && a.Options.Has(Excl):
		return answer("WSAEACCES", "exclusive", "SO_EXCLUSIVEADDRUSE refuses a socket that sets SO_REUSEADDR.", known)
	case b.Options.Has(Addr):
		return answer("", "taking", "SO_REUSEADDR takes any address from a socket without SO_EXCLUSIVEADDRUSE, whoever owns it.", known)
	}
	return answer("WSAEADDRINUSE", "overlap", "Any overlapping bind is refused.", known)
}

// windowsTraffic: a specific address before a wildcard.
func windowsTraffic(to destination, sharing []Binding) Traffic {
	page := Known{Vendor, winsockPage}
	if to.addr.IsMulticast() {
		return Traffic{Way: Copies, To: choose(sharing, func(b Binding) bool { return b.covers(to.addr) }), Known: page,
			Rule: Rule{"multicast", "Every member of the group gets a copy."}}
	}
	top := best(to.addr, sharing, anyBinding, specificFirst(to.addr))
	switch {
	case len(top) > 1:
		return Traffic{Rule: Rule{"undefined", "Microsoft calls it undefined which of the sockets on one address gets the traffic; Wine's tests found the TCP listener that was bound first."}}
	}
	return Traffic{Way: One, To: top, Known: page, Rule: Rule{"specific", "A specific address gets its traffic before any wildcard."}}
}

func windows() System {
	page := Known{Vendor, winsockPage}
	return System{
		name: "windows", title: "Windows, Server 2003 and later",
		options: windowsOptions(),
		second:  windowsSecond, listen: listens(page), traffic: windowsTraffic,
		connect: connects, sameTuple: tupleTaken("WSAEADDRINUSE", Known{Vendor, `"ConnectEx function"`}),
		closing: Closing{Text: "Not known; assume that the connections are lost."},
		facts: []Fact{
			{Restart, "TIME_WAIT does not stand in the way, with no option. Whether SO_EXCLUSIVEADDRUSE holds the port while accepted connections live is disputed.", Known{Inferred, "package net, sockopt_windows.go"}},
			{DualStack, "0.0.0.0 is admitted beside a :: that takes IPv4, too, unless that one set SO_EXCLUSIVEADDRUSE.", Known{Source, winsockTests}},
			{Multicast, "Every member gets a copy. Package net sets SO_REUSEADDR for it, and SO_EXCLUSIVEADDRUSE fails until it is cleared.", Known{Source, "package net, sockopt_windows.go"}},
			{Security, "SO_REUSEADDR on both shares between users. Without options a specific address of the same user takes a wildcard's traffic. SO_EXCLUSIVEADDRUSE prevents both.", page},
			{Late, "Both options must be set before the bind.", page},
		},
	}
}

func windows2000() System {
	s := windows()
	s.name, s.title = "windows-2000", "Windows before Server 2003"
	s.second = windows2000Second
	s.facts = []Fact{
		{Security, "SO_REUSEADDR takes any address from a socket without SO_EXCLUSIVEADDRUSE, which only administrators may set.", Known{Vendor, winsockPage}},
	}
	return s
}

func windowsOptions() []optionData {
	return []optionData{
		{Addr, "SO_REUSEADDR", "", Known{Vendor, winsockPage}},
		{Excl, "SO_EXCLUSIVEADDRUSE", "NT 4.0 SP4", Known{Vendor, winsockPage}},
	}
}
