package handover

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// Without a Name everything but a hand-over works, on every system.
func TestWithoutName(t *testing.T) {
	t.Parallel()
	ctx := soon(t)
	p := begin(t, Config{})
	assert.Zero(t, p.Predecessor())
	l := listen(t, p, reuse.Config{}, "tcp", "127.0.0.1:0")
	packets, err := p.ListenPacket(ctx, reuse.Config{}, "udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer packets.Close()
	assert.IsType(t, &net.TCPListener{}, l)
	assert.IsType(t, &net.UDPConn{}, packets)
	answerAll(l, "p")
	answers(t, "p", l.Addr())
	ready(t, p)
	ready(t, p)
	require.NoError(t, p.Close())
	require.NoError(t, p.Close())
	require.NoError(t, p.Drain(ctx))
	assert.ErrorIs(t, p.Ready(ctx), net.ErrClosed)
	_, err = l.Accept()
	assert.ErrorIs(t, err, net.ErrClosed)
	_, err = p.Listen(ctx, reuse.Config{}, "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, net.ErrClosed)
	_, err = packets.WriteTo([]byte("x"), packets.LocalAddr())
	assert.NoError(t, err, "packet sockets are the caller's")
	assert.False(t, isReplaced(p))
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a\x00", "\x00", "a/b", "/", ".", "..", strings.Repeat("a", 65), strings.Repeat("a", 10_000)} {
		_, err := Config{Name: name}.Start(t.Context())
		assert.ErrorContains(t, err, "a Name has 1 to 64 bytes", "%.80q", name)
	}
}
