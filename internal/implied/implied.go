// Package implied works out from the kernels' rules where two fields of package reuse
// can keep their promise. The tests of package reuse compare it with what is promised.
package implied

import (
	"net/netip"
	"slices"

	"example.com/reuse/internal/semantics"
)

// Exclusive says that the rules keep the traffic of a socket with this address from
// every other socket, once package reuse has made it exclusive. Where the rules do
// not know, they do not.
func Exclusive(s semantics.System, b semantics.Binding) bool {
	if s.Name() == "dragonfly" {
		return false // rules of 2020, which were read and never run: too little for a promise
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
	case "linux", "android", "linux-3.8":
		if b.Proto == semantics.UDP {
			return []semantics.Options{0}
		}
	}
	if b.State >= semantics.Established {
		return []semantics.Options{0}
	}
	return []semantics.Options{0, semantics.Opts(semantics.Addr)}
}

// keeps says that nothing can be bound to the address of a, nor take what is sent
// to it.
func keeps(s semantics.System, a semantics.Binding) bool {
	addresses := []semantics.Binding{{Addr: netip.IPv4Unspecified()}, {Addr: netip.IPv6Unspecified(), V6Only: true}, {Addr: netip.IPv6Unspecified()}}
	for _, to := range destinations() {
		addresses = append(addresses, semantics.Binding{Addr: to})
	}
	for _, mapped := range []string{"::ffff:127.0.0.1", "::ffff:0.0.0.0"} {
		addresses = append(addresses, semantics.Binding{Addr: netip.MustParseAddr(mapped)})
	}
	for _, b := range addresses {
		for _, options := range s.Subsets() {
			for _, user := range []int{1000, 1001, semantics.Root} {
				for _, state := range []semantics.State{semantics.Bound, semantics.Listening} {
					b.Proto, b.State, b.Options, b.User = a.Proto, state, options, user
					answer := s.Second(a, b)
					switch {
					case answer.Known.How == semantics.Unknown:
						return false
					case answer.Err != "":
					case a.Addr == b.Addr.Unmap():
						return false
					case a.State < semantics.Established && takes(s, a, b):
						// What goes to a connected socket goes by its four-tuple.
						return false
					}
				}
			}
		}
	}
	return true
}

// takes says that b gets some of what a would get alone, or that it is not known.
func takes(s semantics.System, a, b semantics.Binding) bool {
	return slices.ContainsFunc(destinations(), func(to netip.Addr) bool {
		alone := s.Traffic(to, []semantics.Binding{a})
		if alone.Known.How != semantics.Unknown && len(alone.To) == 0 {
			return false
		}
		both := s.Traffic(to, []semantics.Binding{a, b})
		return both.Known.How == semantics.Unknown || !slices.Equal(both.To, []int{0})
	})
}

// Balances says that two sockets with this address and the option of PortLB can be
// bound, and that the kernel spreads what is sent to them.
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
		if !s.Second(b, b).OK() || !spreads(s, b) {
			return false
		}
	}
	return true
}

func spreads(s semantics.System, b semantics.Binding) bool {
	covered := false
	for _, to := range destinations() {
		alone := s.Traffic(to, []semantics.Binding{b})
		if alone.Known.How != semantics.Unknown && len(alone.To) == 0 {
			continue
		}
		covered = true
		t := s.Traffic(to, []semantics.Binding{b, b})
		if t.Known.How == semantics.Unknown || t.Way != semantics.Spread || len(t.To) != 2 {
			return false
		}
	}
	return covered
}

// destinations are addresses that traffic may go to.
func destinations() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.AddrFrom4([4]byte{127, 0, 0, 2}), netip.IPv6Loopback(), netip.MustParseAddr("::2")}
}
