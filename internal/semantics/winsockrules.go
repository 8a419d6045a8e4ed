package semantics

// Windows. Microsoft, "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE": its tables make no
// difference between bound and listening, and TCP and UDP. Cases that they leave out come
// from Wine's conformance tests, whose expectations were recorded on Windows
// (dlls/ws2_32/tests/sock.c, tests_exclusive).

const (
	winsockPage  = `"Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE"`
	winsockTests = "Wine's dlls/ws2_32/tests/sock.c tests_exclusive, recorded on Windows"
)

// windowsBind is the rule of Server 2003 and later. Go runs on no older version.
func windowsBind(a, b Binding) Answer {
	known := Evidence{Vendor, winsockPage}
	both := func(b Binding) bool { return b.Options.Has(Addr) && b.Options.Has(Excl) }
	switch {
	case both(a) || both(b):
		return Answer{Err: "WSAEINVAL", Step: "setsockopt", First: both(a), Evidence: Evidence{Source, "Wine's test_reuseaddr; libtorrent #1981"},
			Rule: Rule{"both", "SO_REUSEADDR and SO_EXCLUSIVEADDRUSE contradict each other: setting the second one fails."}}
	case a.multicast() || b.multicast():
		return notKnown("multicast", "Multicast addresses are not documented.")
	case !overlap(a, b):
		return noOverlap(known)
	case a.connected() && !a.Dialed:
		return windowsLeftover(a)
	case !sameFamily(a, b):
		return windowsDual(a, b)
	}
	return windowsTable(a, b, known)
}

// windowsTable is the page's second table and its third.
func windowsTable(a, b Binding, known Evidence) Answer {
	bothAddr := a.Options.Has(Addr) && b.Options.Has(Addr)
	switch {
	case bothAddr:
		return answer("", "both SO_REUSEADDR", "Sockets may overlap if both set SO_REUSEADDR. Which of several sockets on one address gets the traffic is undefined.", known)
	case a.wildcard() == b.wildcard() && b.Options.Has(Addr):
		return answer("WSAEACCES", "taking", "SO_REUSEADDR does not share an address with a socket that did not set it.", known)
	case a.wildcard() == b.wildcard():
		if a.Options.Has(Addr) && b.Options == 0 && !a.wildcard() {
			known = Evidence{Unsure, winsockPage + `; "Sharing Transport Addresses" says access denied`}
		}
		return answer("WSAEADDRINUSE", "same address", "A second bind to the same address fails.", known)
	case b.wildcard() && b.Options.Has(Excl):
		return answer("WSAEADDRINUSE", "exclusive wildcard", "A wildcard bind with SO_EXCLUSIVEADDRUSE fails while a socket is bound to a specific address.", known)
	case b.wildcard():
		return answer("", "wildcard", "A wildcard binds alongside a specific address, and gets none of its traffic.", known)
	case a.Options.Has(Excl):
		return answer("WSAEACCES", "exclusive", "A wildcard socket with SO_EXCLUSIVEADDRUSE prevents a bind to any specific address.", known)
	case a.User == b.User:
		return answer("", "same user", "A specific address binds alongside the same user's wildcard, and gets the traffic of that address.", known)
	}
	return answer("WSAEACCES", "user", "A bind to a specific address fails on the port of another user's wildcard unless both set SO_REUSEADDR.", known)
}

// windowsDual is for a dual-stack wildcard and an IPv4 socket. The page says that the
// port is bound on both stacks. The tests admit binds that the page would refuse.
func windowsDual(a, b Binding) Answer {
	tests := Evidence{Source, winsockTests}
	switch {
	case a.dual() && a.Options.Has(Excl):
		return answer("WSAEACCES", "exclusive", "A dual-stack wildcard with SO_EXCLUSIVEADDRUSE prevents a bind to any IPv4 address.", tests)
	case a.dual() && a.Options == 0 && b.wildcard() && !b.Options.Has(Addr):
		return answer("", "two wildcards", "0.0.0.0 binds alongside a dual-stack :: without options.", tests)
	case a.Options == 0 && !a.wildcard() && b.Options.Has(Excl):
		return answer("WSAEADDRINUSE", "exclusive wildcard", "A dual-stack wildcard bind with SO_EXCLUSIVEADDRUSE fails while a socket is bound to an IPv4 address.", tests)
	case a.Options.Has(Excl):
		return windowsTable(a, b, Evidence{Vendor, winsockPage + ": a dual-stack socket binds the port on both stacks"})
	}
	return windowsTable(a, b, Evidence{Unsure, winsockPage + "; the tests contradict it in a similar case"})
}

// windowsLeftover is for the accepted connections of a closed listener.
func windowsLeftover(a Binding) Answer {
	switch {
	case a.Options.Has(Excl):
		return notKnown("leftover", "Microsoft says that a port with SO_EXCLUSIVEADDRUSE is held until its accepted connections are closed. Two measurements contradict that.")
	case a.State == TimeWait || a.State == FinWait2:
		return answer("", "leftover", "A connection in TIME_WAIT does not prevent a bind.", Evidence{Inferred, "package net relies on it (sockopt_windows.go)"})
	}
	return notKnown("leftover", "The effect of an accepted connection on a bind is not documented.")
}

// windowsTraffic: a specific address comes before a wildcard.
func windowsTraffic(to destination, sharing []Binding) Traffic {
	page := Evidence{Vendor, winsockPage}
	if to.addr.IsMulticast() {
		return copies(to.addr, sharing, page, "Every member of the group gets a copy.")
	}
	top := best(to.addr, sharing, nil)
	if len(top) > 1 {
		return Traffic{Rule: Rule{"undefined", "Which of several sockets on one address gets the traffic is undefined (Microsoft). In Wine's tests it is the TCP listener that was bound first."}}
	}
	return Traffic{Way: One, To: top, Evidence: page, Rule: Rule{"specific", "A specific address gets its traffic before any wildcard."}}
}

func windows() System {
	page := Evidence{Vendor, winsockPage}
	return System{
		name: "windows", title: "Windows",
		options: map[Options]optionData{Addr: {"SO_REUSEADDR", "", page}, Excl: {"SO_EXCLUSIVEADDRUSE", "NT 4.0 SP4", page}},
		bind:    windowsBind, traffic: windowsTraffic,
		facts: []Fact{
			sameTuple("WSAEADDRINUSE", Evidence{Vendor, `"ConnectEx function"`}),
			{Restart, "A bind during TIME_WAIT needs no option. Whether SO_EXCLUSIVEADDRUSE holds the port while accepted connections live is disputed: Microsoft says yes, two measurements say no.", Evidence{Inferred, "package net, sockopt_windows.go"}},
			{DualStack, "0.0.0.0 binds alongside a dual-stack ::, unless that socket set SO_EXCLUSIVEADDRUSE.", Evidence{Source, winsockTests}},
			{Multicast, "Every member gets a copy. Package net sets SO_REUSEADDR for a multicast address, and SO_EXCLUSIVEADDRUSE fails until SO_REUSEADDR is cleared.", Evidence{Source, "package net, sockopt_windows.go"}},
			{Security, "SO_REUSEADDR on both shares between users. Without options a socket of the same user on a specific address gets the traffic of that address from a wildcard socket. SO_EXCLUSIVEADDRUSE prevents both.", page},
			{Late, "Both options must be set before the bind.", page},
		},
	}
}
