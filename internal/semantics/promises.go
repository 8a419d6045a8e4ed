package semantics

import (
	"net/netip"
	"slices"
)

// Exclusive reports whether the rules prevent every other socket from getting the traffic
// of a socket with this address that package reuse has made exclusive. Unverified is false.
func (s System) Exclusive(b Binding) bool {
	if s.name == "dragonfly" { // rules of 2020 that were read and never run do not suffice
		return false
	}
	if s.detour != nil && s.detour(b.unmapped()) {
		return false
	}
	left := []Options{0, Addr} // the options that package reuse may leave on the socket
	switch {
	case s.Options().Has(Excl):
		left = []Options{Excl, Excl | Addr}
	case b.connected() || b.Proto == UDP:
		left = []Options{0}
	}
	b.User = 1000
	for _, b.Options = range left {
		if !s.keeps(b) {
			return false
		}
	}
	return true
}

// keeps reports whether no other socket can bind the address of a or get its traffic.
func (s System) keeps(a Binding) bool {
	others := []Binding{{Addr: netip.IPv6Unspecified(), V6Only: true}}
	for _, ip := range []string{"0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "::1", "::2", "::ffff:127.0.0.1", "::ffff:0.0.0.0"} {
		others = append(others, Binding{Addr: netip.MustParseAddr(ip)})
	}
	for _, b := range others {
		b.Proto = a.Proto
		for _, b.Options = range s.Subsets() {
			for _, b.User = range []int{1000, 1001, Root} {
				for _, b.State = range []State{Bound, Listening} {
					answer := s.Bind(a, b)
					switch {
					case answer.Evidence.Kind == Unknown:
						return false
					case answer.Err != "":
					case a.Addr == b.Addr.Unmap():
						return false
					case !a.connected() && s.takes(a, b): // a connected socket is found by its four-tuple
						return false
					}
				}
			}
		}
	}
	return true
}

// takes reports whether b gets some of the traffic that a would get alone, or whether
// that is unverified.
func (s System) takes(a, b Binding) bool {
	return slices.ContainsFunc(s.destinations(a), func(to netip.Addr) bool {
		both := s.Traffic(to, []Binding{a, b})
		return both.Evidence.Kind == Unknown || !slices.Equal(both.To, []int{0})
	})
}

// destinations returns addresses whose traffic b gets alone, or may get.
func (s System) destinations(b Binding) []netip.Addr {
	list := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.IPv6Loopback(), netip.MustParseAddr("::2")}
	return slices.DeleteFunc(list, func(to netip.Addr) bool {
		alone := s.Traffic(to, []Binding{b})
		return alone.Evidence.Kind != Unknown && len(alone.To) == 0
	})
}

// Balances reports whether two sockets with this address and the option of PortLB can be
// bound, and the kernel spreads the traffic over them.
func (s System) Balances(b Binding) bool {
	o := Port
	if s.Options().Has(LB) {
		o = LB
	}
	sets := []Options{o, o | Addr}
	if s.name == Solaris114 {
		sets = []Options{o} // package reuse clears SO_REUSEADDR
	}
	for _, b.Options = range sets {
		notSpread := func(to netip.Addr) bool { return s.Traffic(to, []Binding{b, b}).Way != Spread }
		if !s.Bind(b, b).OK() || slices.ContainsFunc(s.destinations(b), notSpread) {
			return false
		}
	}
	return true
}
