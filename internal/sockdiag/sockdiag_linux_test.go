package sockdiag

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	listen      = 1 << unix.BPF_TCP_LISTEN
	unconnected = 1 << unix.BPF_TCP_CLOSE
)

// A socket that listens, or is unconnected, is found, and nothing else.
func TestSocketsOfPort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		family           uint8
		v6only           bool
	}{
		{"4", "127.0.0.1:0", unix.AF_INET, false},
		{"4", "0.0.0.0:0", unix.AF_INET, false},
		{"6", "[::1]:0", unix.AF_INET6, false},
		{"6", "[::]:0", unix.AF_INET6, true},
		{"", ":0", unix.AF_INET6, false},
	} {
		found := func(protocol uint8, state uint32, at netip.AddrPort) {
			list, err := Sockets(protocol, tt.family, at.Port(), state)
			require.NoError(t, err)
			require.Len(t, list, 1, "%v", at)
			if at.Addr().IsUnspecified() {
				assert.Equal(t, tt.v6only, list[0].V6Only, "%+v", tt)
			}
			assert.NotZero(t, list[0].Inode)
			want := Socket{State: state, Local: at, UID: uint32(os.Getuid()), Inode: list[0].Inode, V6Only: list[0].V6Only}
			assert.Equal(t, want, list[0])
		}
		l, err := net.Listen("tcp"+tt.network, tt.address)
		require.NoError(t, err)
		defer l.Close()
		found(unix.IPPROTO_TCP, listen, l.Addr().(*net.TCPAddr).AddrPort())
		p, err := net.ListenPacket("udp"+tt.network, tt.address)
		require.NoError(t, err)
		defer p.Close()
		found(unix.IPPROTO_UDP, unconnected, p.LocalAddr().(*net.UDPAddr).AddrPort())
		c, err := net.Dial("udp", p.LocalAddr().String())
		require.NoError(t, err)
		defer c.Close()
		list, err := Sockets(unix.IPPROTO_UDP, tt.family, c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), unconnected)
		require.NoError(t, err)
		assert.Empty(t, list, "it is connected")
	}
}

// The errno of a dump that fails is not lost. No kernel has a handler for IGMP.
func TestFailedDumpIsError(t *testing.T) {
	t.Parallel()
	_, err := Sockets(unix.IPPROTO_IGMP, unix.AF_INET, 80, listen)
	assert.ErrorIs(t, err, unix.ENOENT)
}

// No message of a netlink socket makes the parser panic.
func FuzzParse(f *testing.F) {
	msg := make([]byte, messageSize)
	msg[0] = unix.AF_INET
	f.Add(msg)
	f.Add(append(msg, 5, 0, attrV6Only, 0, 1, 0, 0, 0))
	f.Add(append(msg, 1, 0, attrV6Only, 0))
	f.Add(msg[:8])
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parse(b)
	})
}
