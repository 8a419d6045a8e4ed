package reuse

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
)

// On Linux every place is alike, on other systems it decides: so the places of real
// sockets are checked here.
func TestPlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		want             semantics.Places
	}{
		{"tcp4", "127.0.0.1:0", semantics.IPv4},
		{"tcp4", "0.0.0.0:0", semantics.IPv4Any},
		{"tcp4", ":0", semantics.IPv4Any},
		{"tcp6", "[::1]:0", semantics.IPv6},
		{"tcp6", "[::]:0", semantics.IPv6Any},
		{"tcp", ":0", semantics.DualAny},
		{"tcp", "[::]:0", semantics.DualAny},
		{"tcp", "127.0.0.1:0", semantics.IPv4},
		{"tcp", "[::1]:0", semantics.IPv6},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			var got semantics.Places
			lc := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
				s := setup{network: network, address: address}
				var err error
				cerr := rc.Control(func(fd uintptr) { got, err = s.place(fd) })
				require.NoError(t, cerr)
				return err
			}}
			l, err := lc.Listen(t.Context(), tt.network, tt.address)
			if err != nil {
				t.Skipf("no loopback for it: %v", err)
			}
			require.NoError(t, l.Close())
			assert.Equal(t, tt.want, got)
		})
	}
	s := setup{network: "udp4", address: "224.0.0.1:5353"}
	got, err := s.place(0)
	require.NoError(t, err)
	assert.Equal(t, semantics.IPv4Any, got)
}

// An option that is On is refused if another one would clear it; one that is only
// preferred gives way.
func TestNotTogether(t *testing.T) {
	t.Parallel()
	s := setup{config: Config{Addr: On, Exclusive: On}, network: "udp4", address: "127.0.0.1:1"}
	assert.ErrorIs(t, s.refuse(Exclusive, 0), refusal("not together with Addr"))

	s.config.Addr = Prefer
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		if err := rc.Control(s.prepare); err != nil {
			return err
		}
		return s.err
	}}
	p, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer p.Close()
	got, err := Inspect(p.(syscall.Conn))
	require.NoError(t, err)
	assert.Equal(t, Off, got.Addr)
}

func TestResolveKeepsZone(t *testing.T) {
	t.Parallel()
	a, err := resolve(t.Context(), "udp6", "[fe80::1%lo]:5")
	require.NoError(t, err)
	assert.Equal(t, "[fe80::1%lo]:5", a.String())
	a, err = resolve(t.Context(), "ip6:icmp", "fe80::1%lo")
	require.NoError(t, err)
	assert.Equal(t, "fe80::1%lo", a.String())
}
