package group_test

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
)

// packetGroup opens a group, or skips the test where there are none.
func packetGroup(t *testing.T, size int, network, address string) *group.PacketGroup {
	t.Helper()
	g, err := group.Config{Size: size}.ListenPacket(t.Context(), network, address)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			assert.ErrorIs(t, err, net.ErrClosed)
		}
	})
	return g
}

// One port for all sockets of a group, and never the same for two groups.
func TestPacketPortZero(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ network, address string }{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}, {"udp", ":0"}} {
		t.Run(tt.network, func(t *testing.T) {
			t.Parallel()
			seen := map[string]bool{}
			for range 200 {
				g := packetGroup(t, 2, tt.network, tt.address)
				at := g.LocalAddr().String()
				require.False(t, seen[at], "%s given out twice", at)
				seen[at] = true
				require.Len(t, g.Conns(), 2)
				for _, c := range g.Conns() {
					require.Equal(t, at, c.LocalAddr().String())
					options, err := reuse.Inspect(c.(syscall.Conn))
					require.NoError(t, err)
					require.Equal(t, reuse.On, options.PortLB)
				}
			}
		})
	}
}

func TestPacketBadInput(t *testing.T) {
	t.Parallel()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name             string
		ctx              context.Context
		config           group.Config
		network, address string
		is               error
	}{
		{"negative size", t.Context(), group.Config{Size: -1}, "udp4", "127.0.0.1:0", os.ErrInvalid},
		{"a million", t.Context(), group.Config{Size: 1_000_000}, "udp4", "127.0.0.1:0", os.ErrInvalid},
		{"conflict", t.Context(), group.Config{Socket: reuse.Config{Exclusive: reuse.On}}, "udp4", "127.0.0.1:0", reuse.ErrConflict},
		{"unixgram", t.Context(), group.Config{}, "unixgram", "a", errors.ErrUnsupported},
		{"ip", t.Context(), group.Config{}, "ip4:icmp", "127.0.0.1", errors.ErrUnsupported},
		{"tcp", t.Context(), group.Config{}, "tcp", "127.0.0.1:0", net.UnknownNetworkError("tcp")},
		{"nothing", t.Context(), group.Config{}, "", "127.0.0.1:0", net.UnknownNetworkError("")},
		{"multicast", t.Context(), group.Config{}, "udp4", "224.0.0.9:0", errors.ErrUnsupported},
		{"multicast", t.Context(), group.Config{}, "udp6", "[ff02::9%1]:0", errors.ErrUnsupported},
		{"ctx done", done, group.Config{}, "udp4", "127.0.0.1:0", context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, err := tt.config.ListenPacket(tt.ctx, tt.network, tt.address)
			assert.Nil(t, g)
			require.ErrorIs(t, err, tt.is)
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			assert.Equal(t, "listen", op.Op)
		})
	}
	for _, address := range []string{"127.0.0.1", "127.0.0.1:99999", "[::1]:0"} {
		_, err := group.Config{}.ListenPacket(t.Context(), "udp4", address)
		assert.Error(t, err, address)
	}
}

// A socket that does not share keeps its address.
func TestPacketInUse(t *testing.T) {
	t.Parallel()
	packetGroup(t, 1, "udp4", "127.0.0.1:0") // or skip
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer p.Close()
	_, err = group.Config{}.ListenPacket(t.Context(), "udp4", p.LocalAddr().String())
	var op *net.OpError
	require.ErrorAs(t, err, &op)
}

func TestPacketClosed(t *testing.T) {
	t.Parallel()
	g := packetGroup(t, 3, "udp4", "127.0.0.1:0")
	require.ErrorIs(t, g.TakeOver(t.Context(), -1), os.ErrInvalid)
	require.ErrorIs(t, g.TakeOver(t.Context(), 2), os.ErrInvalid)
	require.NoError(t, g.Conns()[1].Close()) // one alone
	require.ErrorIs(t, g.Conns()[1].Close(), net.ErrClosed)
	read := make(chan error)
	go func() {
		_, _, err := g.Conns()[0].ReadFrom(make([]byte, 1))
		read <- err
	}()
	require.NoError(t, g.Close())
	require.ErrorIs(t, <-read, net.ErrClosed)
	require.ErrorIs(t, g.Close(), net.ErrClosed)
	require.ErrorIs(t, g.Drain(t.Context()), net.ErrClosed)
	require.ErrorIs(t, g.TakeOver(t.Context(), 0), net.ErrClosed)
	_, err := g.Conns()[0].WriteTo([]byte{1}, g.LocalAddr())
	require.ErrorIs(t, err, net.ErrClosed)
}

// Whatever Drain finds, reads end and writes do not.
func TestPacketDrainEndsReads(t *testing.T) {
	t.Parallel()
	g := packetGroup(t, 1, "udp4", "127.0.0.1:0")
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer peer.Close()
	c := g.Conns()[0].(interface {
		net.Conn
		net.PacketConn
		syscall.Conn
		ReadFromUDP([]byte) (int, *net.UDPAddr, error)
		ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	})
	reads := map[string]func() error{
		"Read":        func() error { _, err := c.Read(make([]byte, 1)); return err },
		"ReadFrom":    func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err },
		"ReadFromUDP": func() error { _, _, err := c.ReadFromUDP(make([]byte, 1)); return err },
		"ReadMsgUDP":  func() error { _, _, _, _, err := c.ReadMsgUDP(make([]byte, 1), nil); return err },
		"SyscallConn": func() error {
			rc, err := c.SyscallConn()
			if err != nil {
				return err
			}
			return rc.Read(func(uintptr) bool { return false })
		},
	}
	under := make(chan error)
	for _, read := range reads {
		go func() { under <- read() }()
	}
	require.Error(t, g.Drain(t.Context())) // nobody else is there
	for range reads {
		require.ErrorIs(t, <-under, net.ErrClosed)
	}
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	require.NoError(t, c.SetDeadline(time.Time{}))
	for name, read := range reads {
		require.ErrorIs(t, read(), net.ErrClosed, name)
	}
	_, err = c.Write([]byte{1})
	require.Error(t, err)
	_, err = c.WriteTo([]byte{7}, peer.LocalAddr())
	require.NoError(t, err)
	b := make([]byte, 2)
	n, from, err := peer.ReadFrom(b)
	require.NoError(t, err)
	assert.Equal(t, []byte{7}, b[:n])
	assert.Equal(t, g.LocalAddr().String(), from.String())
	require.ErrorIs(t, g.Drain(t.Context()), net.ErrClosed)
	require.ErrorIs(t, g.TakeOver(t.Context(), 0), net.ErrClosed)
	require.NoError(t, g.Close())
	_, err = c.WriteTo([]byte{7}, peer.LocalAddr())
	require.ErrorIs(t, err, net.ErrClosed)
}
