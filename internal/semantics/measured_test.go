package semantics_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// A meeting is what a measured row is about, but for the options.
type meeting struct {
	proto         semantics.Proto
	state         semantics.State // of the first
	dialed, same  bool
	first, second netip.Addr
	only1, only2  bool // IPv6 only
}

// meet names a pair of bindings as the rows would. Of each kind of address
// they have one, or two if the pair has.
func meet(a, b semantics.Binding) meeting {
	x, y := a.Addr, b.Addr
	if a.State >= semantics.Established {
		x = x.Unmap() // an IPv4 connection, whichever socket has it
	}
	for _, kind := range []struct {
		names [2]string
		is    func(netip.Addr) bool
	}{
		{[2]string{"127.0.0.1", "127.0.0.2"}, func(ip netip.Addr) bool { return ip.Is4() && !ip.IsUnspecified() && !ip.IsMulticast() }},
		{[2]string{"224.1.2.3", "224.1.2.4"}, func(ip netip.Addr) bool { return ip.Is4() && ip.IsMulticast() }},
		{[2]string{"::1", "::2"}, func(ip netip.Addr) bool {
			return ip.Is6() && !ip.Is4In6() && !ip.IsUnspecified() && !ip.IsMulticast()
		}},
	} {
		first, other := netip.MustParseAddr(kind.names[0]), netip.MustParseAddr(kind.names[1])
		switch {
		case kind.is(x) && kind.is(y) && x != y:
			x, y = first, other
		case kind.is(x) && kind.is(y):
			x, y = first, first
		case kind.is(x):
			x = first
		case kind.is(y):
			y = first
		}
	}
	return meeting{
		a.Proto, a.State, a.Dialed, a.User == b.User, x, y,
		x == netip.IPv6Unspecified() && a.V6Only || a.State >= semantics.Established && x.Is6() && !x.Is4In6() && a.V6Only,
		y == netip.IPv6Unspecified() && b.V6Only,
	}
}

// Only what has a row is called measured. On FreeBSD and NetBSD all pairs of Linux'
// rows were compared with the rules, and only those that differed have been kept; what
// is left of their connections was measured without rows of this kind.
func TestMeasuredHasRows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		system string
		files  []string
		users  bool                     // another user's were measured, too
		left   map[semantics.State]bool // so were these
	}{
		{"linux", []string{"linux-6.18-all.txt", "linux-6.18-leftovers.txt", "linux-windows-solaris.txt"}, false, nil},
		{"freebsd-14", []string{"linux-6.18-all.txt", "freebsd-14.txt"}, true, map[semantics.State]bool{semantics.Established: true, semantics.TimeWait: true}},
		{"netbsd", []string{"linux-6.18-all.txt", "netbsd-7.99.txt", "netbsd-7.99-other-uid.txt"}, false,
			map[semantics.State]bool{semantics.Established: true, semantics.TimeWait: true, semantics.FinWait2: true}},
	} {
		s, err := semantics.Find(tt.system)
		require.NoError(t, err)
		measured := map[meeting]bool{}
		for _, file := range tt.files {
			rows, _ := pairs(t, file)
			for _, r := range rows {
				if r.how != "measured" || file != "linux-6.18-all.txt" && !slices.Contains(r.systems, tt.system) {
					continue
				}
				if !r.same {
					r.second.User++
				}
				measured[meet(r.first, r.second)] = true
				if tt.users {
					r.second.User++
					measured[meet(r.first, r.second)] = true
				}
			}
		}
		var sockets []semantics.Binding
		for _, ip := range []string{
			"192.0.2.1", "192.0.2.2", "0.0.0.0", "224.1.2.3", "224.1.2.4", "::", "::1", "::2", "ff02::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0",
		} {
			b := semantics.Binding{Addr: netip.MustParseAddr(ip), User: 1000}
			sockets = append(sockets, b)
			b.V6Only = true
			if b.Addr.Is6() && !b.Addr.Is4In6() {
				sockets = append(sockets, b)
			}
		}
		counts := map[bool]int{}
		for _, a := range sockets {
			for _, b := range sockets {
				for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
					for state := semantics.Bound; state <= semantics.CloseWait; state++ {
						for _, dialed := range []bool{false, true} {
							for _, user := range []int{1000, 1001} {
								a, b := a, b
								a.Proto, a.State, a.Dialed = proto, state, dialed && state >= semantics.Established
								b.Proto, b.State, b.User = proto, semantics.Bound, user
								if proto == semantics.UDP && (state == semantics.Listening || a.State >= semantics.Established && !(dialed && state == semantics.Established)) {
									continue // there is no such thing
								}
								m := meet(a, b)
								if s.Second(a, b).Known.How != semantics.Measured {
									assert.False(t, measured[m] && !a.Addr.Is4In6() && !b.Addr.Is4In6(), "%s: a row has %+v", tt.system, m)
									continue
								}
								if tt.left[state] && !dialed && m.first == netip.MustParseAddr("127.0.0.1") && (m.first == m.second || m.second == netip.IPv4Unspecified()) {
									continue
								}
								counts[measured[m]]++
								if !measured[m] && counts[false] < 10 {
									t.Errorf("%s: no row has %+v", tt.system, m)
								}
							}
						}
					}
				}
			}
		}
		assert.Positive(t, counts[true], tt.system)
		assert.Zero(t, counts[false], tt.system)
	}
}

// Kernels that are known to deviate are not named among those that agree.
func TestDeviation(t *testing.T) {
	t.Parallel()
	linux, err := semantics.Find("linux")
	require.NoError(t, err)
	wildcard, specific := netip.MustParseAddr("::ffff:0.0.0.0"), netip.MustParseAddr("::ffff:127.0.0.1")
	for _, tt := range []struct {
		proto         semantics.Proto
		first, second netip.Addr
		deviates      bool
	}{
		{semantics.TCP, wildcard, specific, true},
		{semantics.TCP, specific, wildcard, false},
		{semantics.TCP, wildcard, wildcard, false},
		{semantics.TCP, wildcard.Unmap(), specific, false},
		{semantics.TCP, wildcard, specific.Unmap(), false},
		{semantics.UDP, wildcard, specific, false},
	} {
		b := semantics.Binding{Proto: tt.proto, State: semantics.Bound, Addr: tt.first}
		second := b
		second.Addr = tt.second
		known := linux.Second(b, second).Known
		assert.Equal(t, semantics.Measured, known.How)
		assert.Equal(t, tt.deviates, strings.Contains(known.Where, "admit it in 21 cases"), "%+v: %v", tt, known)
	}
	b := semantics.Binding{Proto: semantics.TCP, State: semantics.Established, Addr: specific}
	second := b
	second.State, second.Addr = semantics.Bound, wildcard.Unmap()
	assert.Equal(t, "6.18.44", linux.Second(b, second).Known.Where)
}
