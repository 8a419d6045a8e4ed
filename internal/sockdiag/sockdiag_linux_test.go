package sockdiag

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func cookie(t *testing.T, sc syscall.Conn) (c uint64) {
	rc, err := sc.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		c, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
	}))
	require.NoError(t, err)
	return c
}

// What is listening is found, with its queue, and nothing else.
func TestListeners(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		family           uint8
		v6only           bool
	}{
		{"tcp4", "127.0.0.1:0", unix.AF_INET, false},
		{"tcp4", "0.0.0.0:0", unix.AF_INET, false},
		{"tcp6", "[::1]:0", unix.AF_INET6, false},
		{"tcp6", "[::]:0", unix.AF_INET6, true},
		{"tcp", ":0", unix.AF_INET6, false},
	} {
		var lc net.ListenConfig
		for _, mptcp := range []bool{false, true} {
			lc.SetMultipathTCP(mptcp)
			l, err := lc.Listen(t.Context(), tt.network, tt.address)
			require.NoError(t, err)
			defer l.Close()
			at := l.Addr().(*net.TCPAddr).AddrPort()
			list, err := TCP(tt.family, at.Port(), Listen)
			require.NoError(t, err)
			require.Len(t, list, 1, "%v", l.Addr())
			got := list[0]
			assert.Equal(t, at, got.Local)
			assert.EqualValues(t, Listen, got.State)
			assert.EqualValues(t, os.Getuid(), got.UID)
			assert.Zero(t, got.Queue)
			if at.Addr().IsUnspecified() {
				assert.Equal(t, tt.v6only, got.V6Only, "%s %s", tt.network, tt.address)
			}
			if !mptcp {
				assert.Equal(t, cookie(t, l.(syscall.Conn)), got.Cookie)
			}
			c, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			require.Eventually(t, func() bool { // the last ACK may still be on its way
				list, err = TCP(tt.family, at.Port(), Listen)
				return err == nil && len(list) == 1 && list[0].Queue == 1
			}, time.Minute, time.Millisecond)
		}
	}
}

// A UDP socket is found by whether it is connected, with what is queued on it.
func TestPackets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network, address string
		family           uint8
		v6only           bool
	}{
		{"udp4", "127.0.0.1:0", unix.AF_INET, false},
		{"udp4", "0.0.0.0:0", unix.AF_INET, false},
		{"udp6", "[::1]:0", unix.AF_INET6, false},
		{"udp6", "[::]:0", unix.AF_INET6, true},
		{"udp", ":0", unix.AF_INET6, false},
	} {
		p, err := net.ListenPacket(tt.network, tt.address)
		require.NoError(t, err)
		defer p.Close()
		at := p.LocalAddr().(*net.UDPAddr).AddrPort()
		list, err := UDP(tt.family, at.Port(), Unconnected)
		require.NoError(t, err)
		require.Len(t, list, 1, "%v", at)
		got := list[0]
		assert.Equal(t, at, got.Local)
		assert.EqualValues(t, Unconnected, got.State)
		assert.EqualValues(t, os.Getuid(), got.UID)
		assert.Equal(t, cookie(t, p.(syscall.Conn)), got.Cookie)
		assert.Zero(t, got.Queue)
		if at.Addr().IsUnspecified() {
			assert.Equal(t, tt.v6only, got.V6Only, "%s %s", tt.network, tt.address)
		}
		c, err := net.Dial("udp", p.LocalAddr().String())
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte{1})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			list, err = UDP(tt.family, at.Port(), Unconnected)
			return err == nil && len(list) == 1 && list[0].Queue > 0
		}, 10*time.Second, time.Millisecond)
		list, err = UDP(tt.family, c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), Unconnected)
		require.NoError(t, err)
		assert.Empty(t, list, "it is connected")
	}
}

// The errno of a dump that fails is not lost. No kernel has a handler for IGMP.
func TestNoHandler(t *testing.T) {
	t.Parallel()
	_, err := sockets(unix.IPPROTO_IGMP, unix.AF_INET, 80, Listen)
	assert.ErrorIs(t, err, unix.ENOENT)
}

func TestNone(t *testing.T) {
	t.Parallel()
	list, err := TCP(unix.AF_INET, 0xffff, SynRecv)
	require.NoError(t, err)
	assert.Empty(t, list)
}

// Nothing that a netlink socket might say makes the parsers fail in another way
// than with an error.
func FuzzParse(f *testing.F) {
	msg := make([]byte, messageSize)
	msg[0] = unix.AF_INET
	f.Add(msg)
	f.Add(append(msg, 5, 0, attrV6Only, 0, 1, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parse(b)
		for len(b) > 0 {
			_, _, _, rest, err := next(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}
