package semantics

import "net/netip"

// What the BSDs and Darwin have in common from 4.4BSD: bind looks up, among the
// sockets of its port, the one that fits its address best, twice. Once for the
// test of users, whatever overlaps; and once for the test of conflict, where a
// socket that sets a sharing option looks for an unconnected socket on exactly
// its own address only. What it finds must share an option with it. Whether the
// other listens makes no difference, nor do TCP and UDP. listen looks at nothing.

// exact says that a socket is unconnected and on exactly the address of b.
func exact(a, b Binding) bool { return !a.connected() && a.Addr == b.Addr }

// tried says that a pair of addresses is one of those that were measured on FreeBSD
// 14.0 and NetBSD 9.1 and 10.99, for one user and for two: the pairs of Linux.
func tried(a, b Binding) bool {
	for _, x := range []Binding{a, b} {
		if x.connected() || x.multicast() && (x.mapped || !x.v4()) {
			return false
		}
	}
	if a.wildcard() || b.wildcard() || a.Addr == b.Addr {
		return true
	}
	return (a.v4() || b.v4()) && !(a.multicast() && b.multicast())
}

// looks says whether the test of conflict of b finds a, which overlaps it: on
// its own address if b sets a sharing option, anywhere if not.
func looks(a, b Binding, sharing Options) bool {
	return b.Options&sharing == 0 || exact(a, b)
}

// tcpMulticast: binding TCP to a multicast address fails, whoever does.
func tcpMulticast(a, b Binding, known Known) (Answer, bool) {
	if a.Proto != TCP || !a.multicast() && !b.multicast() {
		return Answer{}, false
	}
	return Answer{Err: "EAFNOSUPPORT", Step: "bind", First: a.multicast(), Known: known,
		Rule: Rule{"TCP multicast", "A TCP socket cannot be bound to a multicast address."}}, true
}

// bsdHandsOut: port 0 looks for a port as bind would, without the test of users:
// with a sharing option only an unconnected socket on the same address is in the
// way. Some systems look at whatever overlaps for IPv4, options or not.
func bsdHandsOut(strict4 bool, known Known) func(a, b Binding) Answer {
	return func(a, b Binding) Answer {
		switch {
		case !sameFamily(a, b):
			return Answer{Rule: Rule{"families", "Whether port 0 looks at the other family has not been read."}}
		case strict4 && b.v4() || b.Options == 0:
			return given(!overlap(a, b), known)
		}
		return given(!exact(a, b), known)
	}
}

func bsdUser(known Known) Answer {
	return answer("EADDRINUSE", "user", "A port that another user's socket holds with an overlapping address is refused to everyone but root, whatever the options.", known)
}

func bsdShared(known Known) Answer {
	return answer("", "shared", "Two sockets may have the same address if both set SO_REUSEPORT, or on FreeBSD both SO_REUSEPORT_LB; a multicast one also if both set SO_REUSEADDR.", known)
}

func bsdConflict(b Binding, sharing Options, known Known) Answer {
	if b.Options&sharing == 0 {
		return answer("EADDRINUSE", "plain", "A socket without a sharing option is refused beside any overlapping one, a leftover connection included.", known)
	}
	return answer("EADDRINUSE", "same address", "An unconnected socket on the same address refuses a second unless both set SO_REUSEPORT, or on FreeBSD both SO_REUSEPORT_LB; for a multicast address SO_REUSEADDR on both is enough, too.", known)
}

func bsdBeside(b Binding, known Known) Answer {
	if b.Options == 0 {
		return answer("", "unseen", "The bind does not look at the other socket.", known)
	}
	return answer("", "beside", "A socket with a sharing option may be bound beside any overlapping one that is not on exactly its own address, or is connected; the other's options do not matter.", known)
}

// separate makes every IPv6 socket IPv6 only, for systems where it is.
func separate(list ...Binding) []Binding {
	only6 := make([]Binding, len(list))
	for i, b := range list {
		b.V6Only = b.V6Only || !b.v4()
		only6[i] = b
	}
	return only6
}

// bsdTraffic: a specific address before a wildcard, and of several sockets on a
// specific address the newest, on a wildcard as the system has it. A TCP socket
// that is bound, but does not listen, is found as well.
func bsdTraffic(to destination, sharing []Binding, wildcard func([]int) []int, known Known) Traffic {
	if to.addr.IsMulticast() {
		return bsdCopies(to.addr, sharing, known)
	}
	top := best(to.addr, sharing, anyBinding, specificFirst(to.addr))
	if len(top) == 0 {
		return Traffic{Known: known}
	}
	if mapped(to.addr, sharing, top) {
		known = Known{Inferred, "from DragonFly's in_pcblookup_pkthash, which takes 0.0.0.0 before a dual-stack ::"}
	}
	if sharing[top[0]].wildcard() {
		return Traffic{Way: One, To: wildcard(top), Known: known, Rule: Rule{"one wildcard socket", "Of the sockets on a wildcard address one gets everything."}}
	}
	return Traffic{Way: One, To: newest(top), Known: known, Rule: Rule{"newest", "Of the sockets on one specific address the one bound last gets everything, before any wildcard."}}
}

// mapped says that IPv4 traffic has been given to 0.0.0.0 with a dual-stack
// socket there, too.
func mapped(to netip.Addr, sharing []Binding, top []int) bool {
	dual := func(b Binding) bool { return b.dual() }
	return to.Is4() && sharing[top[0]].wildcard() && !sharing[top[0]].dual() && len(choose(sharing, dual)) > 0
}

// bsdCopies: udp_input goes from the newest to the oldest and stops after the
// first socket that sets no sharing option.
func bsdCopies(to netip.Addr, sharing []Binding, known Known) Traffic {
	var all []int
	for i := len(sharing) - 1; i >= 0; i-- {
		if !sharing[i].covers(to) {
			continue
		}
		all = append([]int{i}, all...)
		if sharing[i].Options&(Options(Addr)|Options(Port)|Options(LB)) == 0 {
			break
		}
	}
	return Traffic{Way: Copies, To: all, Known: known, Rule: Rule{"multicast", "Every matching socket gets a copy, from the newest down to the first that sets no sharing option."}}
}
