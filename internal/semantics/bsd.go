package semantics

import "net/netip"

// bsdRules are the rules of the BSDs and Darwin, which come from 4.4BSD, and their
// differences. bind looks twice, among the sockets of its port, for the best match of its
// address. The test of users takes any overlapping socket. The test of conflict takes only
// an unconnected socket on exactly the same address if the binding socket sets a sharing
// option. The socket that is found must share an option with it. TCP and UDP, bound and
// listening sockets have the same rules. listen tests nothing.
type bsdRules struct {
	evidence  func(a, b Binding) Evidence
	tcpGroups bool                      // TCP may be bound to a multicast address
	ipv6Only  bool                      // IPv6 sockets never take IPv4
	user      func(a, b Binding) bool   // whether another user is refused; nil: always
	finds     func(a, b Binding) bool   // whether the test of conflict of b finds a
	group     func(set Options) Options // for a multicast address: of which options a must have one
}

// bsdOptions are those of all BSDs and Darwin.
func bsdOptions() map[Options]optionData {
	heritage := Evidence{Source, "4.4BSD"}
	return map[Options]optionData{Addr: {"SO_REUSEADDR", "", heritage}, Port: {"SO_REUSEPORT", "", heritage}}
}

func (r bsdRules) bind(a, b Binding) Answer {
	known := r.evidence(a, b)
	if a.Proto == TCP && !r.tcpGroups && (a.multicast() || b.multicast()) {
		return Answer{Err: "EAFNOSUPPORT", Step: "bind", First: a.multicast(), Evidence: known,
			Rule: Rule{"TCP multicast", "A TCP socket cannot be bound to a multicast address."}}
	}
	if r.ipv6Only {
		pair := ipv6Only(a, b)
		a, b = pair[0], pair[1]
	}
	shares := b.Options & (Port | LB)
	if b.multicast() {
		shares |= r.group(b.Options)
	}
	switch {
	case !overlap(a, b):
		return noOverlap(known)
	case !b.multicast() && b.User != Root && a.User != b.User && (r.user == nil || r.user(a, b)):
		return answer("EADDRINUSE", "user", "Only root can bind a port that another user's socket has on an overlapping address, whatever the options.", known)
	case !r.finds(a, b) && b.Options == 0:
		return answer("", "unseen", "The bind does not compare itself with the other socket.", known)
	case !r.finds(a, b):
		return answer("", "alongside", "A socket with a sharing option binds alongside any overlapping socket that is connected or on another address. The options of the other socket do not matter.", known)
	case shares&a.Options != 0:
		return answer("", "shared", "Two sockets may have the same address if both set SO_REUSEPORT, or on FreeBSD both SO_REUSEPORT_LB. On a multicast address SO_REUSEADDR on both is also enough.", known)
	case !sharing(b):
		return answer("EADDRINUSE", "plain", "A bind without a sharing option fails while any overlapping socket exists, including a leftover connection.", known)
	}
	return answer("EADDRINUSE", "same address", "An unconnected socket prevents a second one on its address unless both set SO_REUSEPORT, or on FreeBSD both SO_REUSEPORT_LB. On a multicast address SO_REUSEADDR on both is also enough.", known)
}

// sharing reports whether a socket sets a sharing option. The test of conflict makes no
// difference between them.
func sharing(b Binding) bool { return b.Options&(Addr|Port|LB) != 0 }

// bsdFinds: on its own address if b sets a sharing option, anywhere if not.
func bsdFinds(a, b Binding) bool { return !sharing(b) || sameAddress(a, b) }

// dualFinds: IPv4 sees a dual-stack :: as 0.0.0.0. A :: sees 0.0.0.0 and ignores it.
func dualFinds(a, b Binding) bool {
	switch {
	case sameFamily(a, b):
		return bsdFinds(a, b)
	case a.wildcard() && b.wildcard():
		return b.v4()
	}
	return !sharing(b)
}

// sameAddress reports whether a is unconnected and on exactly the address of b.
func sameAddress(a, b Binding) bool { return !a.connected() && a.Addr == b.Addr }

// anyOption: for a group each option means all.
func anyOption(set Options) Options {
	if set == 0 {
		return 0
	}
	return Addr | Port
}

// addrIsPort: for a group SO_REUSEADDR also means SO_REUSEPORT on the socket that binds.
// SO_REUSEPORT does not mean SO_REUSEADDR.
func addrIsPort(set Options) Options {
	if set.Has(Addr) {
		return Addr | Port
	}
	return 0
}

// measuredPair reports whether a pair of addresses was measured on FreeBSD 14.0 and NetBSD
// 9.1 and 10.99, for one user and for two: the pairs of Linux.
func measuredPair(a, b Binding) bool {
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

// measuredRestart reports whether the bind of a new listener was measured there while an
// accepted connection of the previous one remained. Its address is never a wildcard.
func measuredRestart(a, b Binding) bool {
	return !a.Dialed && (a.State == Established || a.State == TimeWait || a.State == FinWait2) && a.v4() &&
		!a.mapped && !b.mapped && (b.Addr == a.Addr || b.Addr == netip.IPv4Unspecified())
}

// bsdAssigns: port 0 looks for a port as bind would, without the test of users. With
// a sharing option only an unconnected socket on the same address prevents it. Some
// systems look at every overlapping socket for IPv4, with and without options.
func bsdAssigns(strict4 bool, known Evidence) func(a, b Binding) Answer {
	return func(a, b Binding) Answer {
		switch {
		case !sameFamily(a, b):
			return notKnown("families", "Whether port 0 looks at the other family is unverified.")
		case strict4 && b.v4() || b.Options == 0:
			return portZero(!overlap(a, b), known)
		}
		return portZero(!sameAddress(a, b), known)
	}
}

// ipv6Only sets V6Only, for systems where IPv6 sockets never take IPv4. It changes list.
func ipv6Only(list ...Binding) []Binding {
	for i := range list {
		list[i].V6Only = true // no effect on IPv4
	}
	return list
}

// bsdTraffic: a specific address comes before a wildcard. Of several sockets on
// a specific address the newest gets the traffic. For a wildcard systems differ. A TCP
// socket that is bound and does not listen is also chosen.
func bsdTraffic(to destination, sharing []Binding, wildcard func([]int) []int, known Evidence) Traffic {
	if to.addr.IsMulticast() {
		return bsdCopies(to.addr, sharing, known)
	}
	top := best(to.addr, sharing, nil)
	if len(top) == 0 {
		return Traffic{Evidence: known}
	}
	first := sharing[top[0]]
	if !first.wildcard() {
		return Traffic{Way: One, To: newest(top), Evidence: known, Rule: Rule{"newest", "The socket bound last on a specific address gets everything, before any wildcard."}}
	}
	if to.addr.Is4() && !first.dual() && len(choose(sharing, Binding.dual)) > 0 {
		known = Evidence{Inferred, "from DragonFly's in_pcblookup_pkthash, which prefers 0.0.0.0 to a dual-stack ::"}
	}
	return Traffic{Way: One, To: wildcard(top), Evidence: known, Rule: Rule{"one wildcard socket", "One of the sockets on a wildcard address gets everything."}}
}

// bsdCopies: udp_input visits the sockets from the newest to the oldest and stops after
// the first one without a sharing option.
func bsdCopies(to netip.Addr, list []Binding, known Evidence) Traffic {
	var all []int
	for i := len(list) - 1; i >= 0; i-- {
		if !list[i].covers(to) {
			continue
		}
		all = append([]int{i}, all...)
		if !sharing(list[i]) {
			break
		}
	}
	return Traffic{Way: Copies, To: all, Evidence: known, Rule: Rule{"multicast", "Every matching socket gets a copy, from the newest to the first that sets no sharing option."}}
}

// always returns a bsdRules.evidence that is the same for all pairs.
func always(known Evidence) func(a, b Binding) Evidence {
	return func(Binding, Binding) Evidence { return known }
}
