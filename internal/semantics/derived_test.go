package semantics_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// place returns what a socket of a place is bound to.
func place(p semantics.Places) semantics.Binding {
	b := semantics.Binding{State: semantics.Listening}
	switch p {
	case semantics.IPv4:
		b.Addr = netip.MustParseAddr("127.0.0.1")
	case semantics.IPv4Any:
		b.Addr = netip.IPv4Unspecified()
	case semantics.IPv6:
		b.Addr = netip.IPv6Loopback()
	case semantics.IPv6Any:
		b.Addr, b.V6Only = netip.IPv6Unspecified(), true
	case semantics.DualAny:
		b.Addr = netip.IPv6Unspecified()
	}
	return b
}

var listens = []semantics.Places{semantics.IPv4, semantics.IPv4Any, semantics.IPv6, semantics.IPv6Any, semantics.DualAny}

// destinations are addresses that traffic may go to.
var destinations = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.IPv6Loopback(), netip.MustParseAddr("::2")}

// seconds calls f with every binding that might conflict with one of user 1000's.
func seconds(s semantics.System, proto semantics.Proto, f func(semantics.Binding)) {
	addresses := []semantics.Binding{place(semantics.IPv4Any), place(semantics.IPv6Any), place(semantics.DualAny)}
	for _, to := range destinations {
		addresses = append(addresses, semantics.Binding{Addr: to})
	}
	for _, b := range addresses {
		for _, options := range s.Subsets() {
			for _, user := range []int{1000, 1001, semantics.Root} {
				for _, state := range []semantics.State{semantics.Bound, semantics.Listening} {
					b.Proto, b.State, b.Options, b.User = proto, state, options, user
					f(b)
				}
			}
		}
	}
}

// exclusive says that nothing can be bound to the address of a, nor take what is
// sent to it; where that is not known it does not hold.
func exclusive(s semantics.System, a semantics.Binding) bool {
	holds := true
	seconds(s, a.Proto, func(b semantics.Binding) {
		answer := s.Second(a, b)
		switch {
		case answer.Known.How == semantics.Unknown:
			holds = false
		case answer.Err != "":
		case a.Addr == b.Addr:
			holds = false
		case a.State < semantics.Established && takes(s, a, b):
			// What goes to a connected socket goes by its four-tuple.
			holds = false
		}
	})
	return holds
}

// takes says that b gets some of what a would get alone, or that it is not known.
func takes(s semantics.System, a, b semantics.Binding) bool {
	return slices.ContainsFunc(destinations, func(to netip.Addr) bool {
		alone := s.Traffic(to, []semantics.Binding{a})
		if alone.Known.How != semantics.Unknown && len(alone.To) == 0 {
			return false
		}
		both := s.Traffic(to, []semantics.Binding{a, b})
		return both.Known.How == semantics.Unknown || !slices.Equal(both.To, []int{0})
	})
}

// impliedExclusive returns where the rules keep the promise of Exclusive, for
// sockets with the options that package reuse leaves or sets.
func impliedExclusive(s semantics.System) semantics.Places {
	sets := []semantics.Options{0, semantics.Opts(semantics.Addr)}
	switch s.Name() {
	case "windows":
		sets = []semantics.Options{semantics.Opts(semantics.Excl)}
	case "solaris", semantics.Solaris114, "illumos":
		sets = []semantics.Options{semantics.Opts(semantics.Excl), semantics.Opts(semantics.Excl, semantics.Addr)}
	case "js", "wasip1", "plan9":
		sets = sets[:1]
	}
	var holds semantics.Places
	for _, p := range listens {
		all := true
		for _, options := range sets {
			a := place(p)
			a.User, a.Options = 1000, options
			a.Proto = semantics.TCP
			all = all && exclusive(s, a)
			if s.Name() == "linux" || s.Name() == "android" || s.Name() == "linux-3.8" {
				a.Options = 0 // UDP's is cleared
			}
			a.Proto, a.State = semantics.UDP, semantics.Bound
			all = all && exclusive(s, a)
		}
		if all {
			holds |= p
		}
	}
	dialed := true
	for _, p := range []semantics.Places{semantics.IPv4, semantics.IPv6} {
		for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
			a := place(p)
			a.Proto, a.State, a.Dialed, a.User, a.Options = proto, semantics.Established, true, 1000, sets[0]
			dialed = dialed && exclusive(s, a)
		}
	}
	if dialed {
		holds |= semantics.Dialed
	}
	return holds
}

// impliedPortLB returns where two sockets with the option are bound and share.
func impliedPortLB(s semantics.System) semantics.Places {
	o := semantics.Port
	if s.OptionName(semantics.LB) != "" {
		o = semantics.LB
	}
	if s.OptionName(o) == "" {
		return semantics.Nowhere
	}
	sets := []semantics.Options{semantics.Opts(o), semantics.Opts(o, semantics.Addr)}
	if s.Name() == "solaris" || s.Name() == semantics.Solaris114 {
		sets = sets[:1] // SO_REUSEADDR is cleared
	}
	var holds semantics.Places
	for _, p := range listens {
		all := true
		for _, options := range sets {
			for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
				b := place(p)
				b.Proto, b.Options, b.User = proto, options, 1000
				all = all && s.Second(b, b).OK() && spreads(s, b)
			}
		}
		if all {
			holds |= p
		}
	}
	return holds
}

func spreads(s semantics.System, b semantics.Binding) bool {
	covered := false
	for _, to := range destinations {
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

// What the core promises is what the rules imply.
func TestVerdictsFollowFromTheRules(t *testing.T) {
	t.Parallel()
	core := map[string]string{ // what the core calls a system, if not by its name
		"freebsd-14": "freebsd", "linux-3.8": "linux",
	}
	for _, s := range semantics.Systems() {
		if s.Name() == "windows-2000" {
			continue // Go does not run there
		}
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			name := s.Name()
			if core[name] != "" {
				name = core[name]
			}
			wantExclusive, wantLB := semantics.Exclusive(name).Holds, semantics.PortLB(name).Holds
			switch s.Name() {
			case "dragonfly":
				// The rules imply more than is promised. They were read in a
				// snapshot of 2020, and never run.
				require.Equal(t, semantics.Nowhere, wantExclusive)
				wantExclusive = semantics.Specific
			case "linux-3.8":
				wantLB = semantics.Nowhere // there is no option, and setting it fails
			}
			assert.Equal(t, wantExclusive, impliedExclusive(s), "Exclusive")
			assert.Equal(t, wantLB, impliedPortLB(s), "PortLB")
		})
	}
}
