package semantics_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"example.com/reuse/internal/implied"
	"example.com/reuse/internal/semantics"
)

// What the rules imply for the fields of package reuse: for TCP and then UDP, on a
// specific IPv4 address, 0.0.0.0, a specific IPv6 address, an IPv6-only :: and a
// dual-stack one; and for a connected socket of both.
func TestImplied(t *testing.T) {
	t.Parallel()
	for _, s := range semantics.Systems() {
		want, ok := map[string][2]string{ // PortLB, Exclusive
			"linux":        {"11111 11111", "10101 00001 10"},
			"android":      {"11111 11111", "10101 00001 10"},
			"linux-3.8":    {"00000 00000", "11111 11111 11"},
			"freebsd":      {"11110 11110", "00000 00000 00"},
			"freebsd-14":   {"11110 11110", "00000 00000 00"},
			"openbsd":      {"00000 00000", "10100 10100 00"},
			"netbsd":       {"00000 00000", "10100 10100 00"},
			"dragonfly":    {"11000 11000", "00000 00000 00"},
			"darwin":       {"00000 00000", "10100 10100 00"},
			"ios":          {"00000 00000", "10100 10100 00"},
			"windows":      {"00000 00000", "11111 11111 11"},
			"illumos":      {"00000 00000", "11111 11111 11"},
			"solaris-11.4": {"11111 11111", "11111 11111 11"},
			"solaris":      {"00000 00000", "11111 11111 11"},
			"aix":          {"00000 00000", "00000 00000 00"},
			"js":           {"00000 00000", "00000 00000 00"},
			"wasip1":       {"00000 00000", "00000 00000 00"},
			"plan9":        {"00000 00000", "00000 00000 00"},
		}[s.Name()]
		if !ok {
			continue // Go does not run there
		}
		var lb, exclusive strings.Builder
		write := func(to *strings.Builder, holds bool) {
			to.WriteByte(map[bool]byte{false: '0', true: '1'}[holds])
		}
		for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
			for _, b := range []semantics.Binding{
				{Addr: netip.MustParseAddr("127.0.0.1")}, {Addr: netip.IPv4Unspecified()},
				{Addr: netip.IPv6Loopback()}, {Addr: netip.IPv6Unspecified(), V6Only: true}, {Addr: netip.IPv6Unspecified()},
			} {
				b.Proto, b.State = proto, semantics.Bound
				if proto == semantics.TCP {
					b.State = semantics.Listening
				}
				write(&lb, implied.Balances(s, b))
				write(&exclusive, implied.Exclusive(s, b))
			}
			lb.WriteByte(' ')
			exclusive.WriteByte(' ')
		}
		for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
			connected := semantics.Binding{Proto: proto, State: semantics.Established, Dialed: true, Addr: netip.MustParseAddr("127.0.0.1")}
			write(&exclusive, implied.Exclusive(s, connected))
		}
		assert.Equal(t, want, [2]string{strings.TrimSpace(lb.String()), exclusive.String()}, s.Name())
	}
}
