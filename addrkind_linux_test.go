package reuse

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is promised depends on the kind of address.
func TestAddrKind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		want             sockKinds
	}{
		{"tcp4", "127.0.0.1:0", tcp4},
		{"tcp4", "0.0.0.0:0", tcp4Any},
		{"tcp4", ":0", tcp4Any},
		{"tcp6", "[::1]:0", tcp6},
		{"tcp6", "[::]:0", tcp6Any},
		{"tcp", ":0", tcpDual},
		{"tcp", "[::]:0", tcpDual},
		{"tcp", "127.0.0.1:0", tcp4},
		{"tcp", "[::1]:0", tcp6},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			var got sockKinds
			lc := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
				s := optionSetter{network: network, address: address}
				var err error
				cerr := rc.Control(func(fd uintptr) { got, err = s.addrKind(fd) })
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
	s := optionSetter{network: "udp4", address: "224.0.0.1:5353"}
	got, err := s.addrKind(0)
	require.NoError(t, err)
	assert.Equal(t, udp4Any, got)
}

// An option that is On is refused if another one would clear it; one that is only
// preferred gives way.
func TestNotTogether(t *testing.T) {
	t.Parallel()
	s := optionSetter{config: Config{Addr: On, Exclusive: On}, network: "tcp6", address: "[::1]:1"}
	assert.ErrorIs(t, s.checkSocket(Exclusive, 0), unsupportedReason("not together with Addr"))

	s.config.Addr, s.network, s.address = Prefer, "udp", ":1"
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		if err := rc.Control(s.prepare); err != nil {
			return err
		}
		return s.err
	}}
	p, err := lc.ListenPacket(t.Context(), "udp", ":0")
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
