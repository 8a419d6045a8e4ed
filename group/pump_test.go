package group_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
)

// alone opens a group that can take over, or skips the test.
func alone(t *testing.T, size int) *group.Group {
	t.Helper()
	if !takesOver("Port", "127.0.0.1:0") {
		t.Skip("TakeOver is unsupported")
	}
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: size}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			assert.ErrorIs(t, err, net.ErrClosed)
		}
	})
	return g
}

// Several goroutines accept on each listener, and go on while the group changes between
// accepting for them and leaving it to them.
func TestTakeOverWhileServing(t *testing.T) {
	t.Parallel()
	g := alone(t, 2)
	served := make(chan error, 3)
	for range cap(served) {
		go func() { served <- g.Serve(answer) }()
	}
	stop := load(g.Addr().String(), 8)
	for range 100 {
		require.NoError(t, g.TakeOver(t.Context(), 0))
	}
	answered, lost := stop()
	assert.NotZero(t, answered)
	assert.Empty(t, lost)
	require.NoError(t, g.Close())
	for range cap(served) {
		require.NoError(t, <-served)
	}
}

// What TakeOver has accepted ahead of a user is his when he accepts, and closed when
// the group is closed before.
func TestAcceptedAhead(t *testing.T) {
	t.Parallel()
	for _, accepts := range []bool{true, false} {
		g := alone(t, 1)
		const n = 5
		var clients []net.Conn
		for range n {
			c, err := net.Dial("tcp4", g.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			clients = append(clients, c)
		}
		require.NoError(t, g.TakeOver(t.Context(), 0))
		l := g.Listeners()[0]
		got := map[string]bool{}
		for range n {
			if accepts {
				c, err := l.Accept()
				require.NoError(t, err)
				got[c.RemoteAddr().String()] = true
				require.NoError(t, c.Close())
			}
		}
		require.NoError(t, g.Close())
		for _, c := range clients {
			assert.Equal(t, accepts, got[c.LocalAddr().String()])
			require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
			_, err := c.Read(make([]byte, 1))
			require.Error(t, err)
			var late net.Error
			assert.False(t, errors.As(err, &late) && late.Timeout(), "the connection is left open")
		}
		_, err := l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	}
}
