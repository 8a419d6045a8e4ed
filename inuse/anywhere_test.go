package inuse

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// On every system a held address is reported as held, or the error says that this system
// does not show it; a free one is never reported as held.
func TestRightOrUnsupported(t *testing.T) {
	// Not parallel: a child that another test forks has this socket until it calls exec.
	for _, tt := range []struct{ network, host, check, with string }{
		{"tcp4", "127.0.0.1", "tcp4", "127.0.0.1"},
		{"tcp4", "0.0.0.0", "tcp4", "127.0.0.1"},
		{"tcp4", "127.0.0.1", "tcp", ""},
		{"tcp6", "::1", "tcp6", "::1"},
		{"tcp6", "::1", "tcp", "0.0.0.0"},
		{"tcp", "", "tcp4", "127.0.0.1"},
		{"udp4", "127.0.0.1", "udp4", "127.0.0.1"},
		{"udp4", "0.0.0.0", "udp4", "127.0.0.1"},
		{"udp6", "::1", "udp6", "::1"},
		{"udp6", "::1", "udp", ""},
		{"udp", "", "udp6", "::1"},
	} {
		l, err := bindAs(reuse.Config{}, tt.network, net.JoinHostPort(tt.host, "0"))
		if err != nil {
			t.Logf("%s %s: %v", tt.network, tt.host, err) // no IPv6, or no sockets
			continue
		}
		var at net.Addr
		switch l := l.(type) {
		case net.Listener:
			at = l.Addr()
		case net.PacketConn:
			at = l.LocalAddr()
		}
		local := addrPort(at.String())
		asked := net.JoinHostPort(tt.with, strconv.Itoa(int(local.Port())))
		r, err := Check(t.Context(), reuse.Config{}, tt.check, asked)
		if err != nil {
			assert.ErrorIs(t, err, errors.ErrUnsupported, "%+v", tt)
			t.Logf("%+v: %v", tt, err)
		} else {
			if runtime.GOOS == "linux" { // others admit some
				assert.False(t, r.Free, "%+v: %v", tt, r)
			}
			require.Len(t, r.Holders, 1, "%+v", tt)
			h := r.Holders[0]
			assert.Equal(t, local, h.Local)
			assert.Equal(t, map[bool]string{true: listen, false: bound}[strings.HasPrefix(tt.network, "tcp")], h.State)
			assert.Equal(t, os.Getpid(), h.PID)
			assert.NotEmpty(t, h.Command)
			assert.Contains(t, r.Reason, asked+" is held by this process, pid ")
		}
		require.NoError(t, l.Close())
		if r, err = Check(t.Context(), reuse.Config{}, tt.check, asked); err != nil {
			assert.ErrorIs(t, err, errors.ErrUnsupported, "%+v", tt)
		} else {
			assert.True(t, r.Free, "%+v: %v", tt, r)
		}
	}
}

// A file of a Unix socket is live or stale, on every system that has such sockets.
func TestUnixAnywhere(t *testing.T) {
	// Not parallel: a child that another test forks has this socket until it calls exec.
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skip("no Unix sockets: ", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Skip("these have no files: ", err) // js
	}
	_, err = net.Listen("unix", path)
	require.Error(t, err)
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.NotContains(t, strings.Join(r.Advice, " "), "Remove the file", "%v", r)
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, err = net.Listen("unix", path)
	require.Error(t, err)
	r, err = Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Contains(t, strings.Join(r.Advice, " "), "Remove the file", "%v", r)
	require.NoError(t, os.Remove(path))
	l, err = net.Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// bindAs is what a user would do: Listen or ListenPacket.
func bindAs(c reuse.Config, network, address string) (io.Closer, error) {
	if strings.HasPrefix(network, "udp") {
		return c.ListenPacket(context.Background(), network, address)
	}
	return c.Listen(context.Background(), network, address)
}
