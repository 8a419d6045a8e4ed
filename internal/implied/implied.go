// Package implied derives from the kernels' rules for which sockets PortLB and Exclusive of
// package reuse hold. The tests of package reuse compare the two.
package implied

import (
	"net/netip"
	"slices"

	"example.com/reuse/internal/semantics"
)

// Exclusive reports whether the rules prevent every other socket from getting the traffic
// of a socket with this address that package reuse has made exclusive. Unverified is false.
func Exclusive(s semantics.System, b semantics.Binding) bool {
	if s.Name() == "dragonfly" {
		return false // rules of 2020 that were read and never run do not suffice
	}
	b.User = 1000
	return !s.Detour(b) && !slices.ContainsFunc(exclusiveOptions(s, b), func(options semantics.Options) bool {
		b.Options = options
		return !keeps(s, b)
	})
}

// exclusiveOptions returns the sets of options that package reuse may leave on an
// exclusive socket.
func exclusiveOptions(s semantics.System, b semantics.Binding) []semantics.Options {
	switch s.Name() {
	case "windows":
		return []semantics.Options{semantics.Opts(semantics.Excl)}
	case "solaris", semantics.Solaris114, "illumos":
		return []semantics.Options{semantics.Opts(semantics.Excl), semantics.Opts(semantics.Excl, semantics.Addr)}
	case "js", "wasip1", "plan9":
		return []semantics.Options{0}
	}
	linux := s.Name() == "linux" || s.Name() == "android" || s.Name() == "linux-3.8"
	if b.State >= semantics.Established || linux && b.Proto == semantics.UDP {
		return []semantics.Options{0}
	}
	return []semantics.Options{0, semantics.Opts(semantics.Addr)}
}

// keeps reports whether no other socket can bind the address of a or get its traffic.
func keeps(s semantics.System, a semantics.Binding) bool {
	addresses := []semantics.Binding{{Addr: netip.IPv6Unspecified(), V6Only: true}}
	for _, ip := range []string{"0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "::1", "::2", "::ffff:127.0.0.1", "::ffff:0.0.0.0"} {
		addresses = append(addresses, semantics.Binding{Addr: netip.MustParseAddr(ip)})
	}
	for _, b := range addresses {
		for _, options := range s.Subsets() {
			for _, user := range []int{1000, 1001, semantics.Root} {
				for _, state := range []semantics.State{semantics.Bound, semantics.Listening} {
					b.Proto, b.State, b.Options, b.User = a.Proto, state, options, user
					answer := s.Bind(a, b)
					switch {
					case answer.Evidence.Kind == semantics.Unknown:
						return false
					case answer.Err != "":
					case a.Addr == b.Addr.Unmap():
						return false
					case a.State < semantics.Established && takes(s, a, b):
						// The traffic of a connected socket is found by its four-tuple.
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
func takes(s semantics.System, a, b semantics.Binding) bool {
	return slices.ContainsFunc(destinations(s, a), func(to netip.Addr) bool {
		both := s.Traffic(to, []semantics.Binding{a, b})
		return both.Evidence.Kind == semantics.Unknown || !slices.Equal(both.To, []int{0})
	})
}

// Balances reports whether two sockets with this address and the option of PortLB can be
// bound, and the kernel spreads the traffic over them.
func Balances(s semantics.System, b semantics.Binding) bool {
	o := semantics.Port
	if s.OptionName(semantics.LB) != "" {
		o = semantics.LB
	}
	if s.OptionName(o) == "" {
		return false
	}
	sets := []semantics.Options{semantics.Opts(o), semantics.Opts(o, semantics.Addr)}
	if s.Name() == semantics.Solaris114 {
		sets = sets[:1] // SO_REUSEADDR is cleared
	}
	b.User = 1000
	for _, b.Options = range sets {
		if !s.Bind(b, b).OK() || !spreads(s, b) {
			return false
		}
	}
	return true
}

func spreads(s semantics.System, b semantics.Binding) bool {
	list := destinations(s, b)
	return len(list) > 0 && !slices.ContainsFunc(list, func(to netip.Addr) bool {
		t := s.Traffic(to, []semantics.Binding{b, b})
		return t.Evidence.Kind == semantics.Unknown || t.Way != semantics.Spread || len(t.To) != 2
	})
}

// destinations returns addresses whose traffic b gets alone, or may get.
func destinations(s semantics.System, b semantics.Binding) []netip.Addr {
	list := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.IPv6Loopback(), netip.MustParseAddr("::2")}
	return slices.DeleteFunc(list, func(to netip.Addr) bool {
		alone := s.Traffic(to, []semantics.Binding{b})
		return alone.Evidence.Kind != semantics.Unknown && len(alone.To) == 0
	})
}
