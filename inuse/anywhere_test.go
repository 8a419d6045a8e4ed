package inuse

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// On every system a held address is reported as held, or the error wraps ErrUnsupported. A
// free address is never reported as held.
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
		if p, ok := l.(net.PacketConn); ok {
			at = p.LocalAddr()
		} else {
			at = l.(net.Listener).Addr()
		}
		local := addrPort(at.String())
		asked := net.JoinHostPort(tt.with, strconv.Itoa(int(local.Port())))
		check := func() *Report {
			r, err := Check(t.Context(), reuse.Config{}, tt.check, asked)
			if err != nil {
				require.ErrorIs(t, err, errors.ErrUnsupported, "%+v", tt)
			}
			return r
		}
		if r := check(); r != nil {
			assert.False(t, r.Free && runtime.GOOS == "linux", "%+v: %v", tt, r) // others admit some
			held := holdersAt(r, local)
			require.Len(t, held, 1, "%+v: %v", tt, r)
			assert.Equal(t, map[bool]string{true: listen, false: bound}[strings.HasPrefix(tt.network, "tcp")], held[0].State)
			assert.Equal(t, os.Getpid(), held[0].PID)
			assert.NotEmpty(t, held[0].Command)
			assert.Contains(t, r.Reason, asked+" is held by this process, pid ")
		}
		// Another bind is explained, by what Holders returns if the system shows it.
		if second, err := bindAs(reuse.Config{}, tt.check, asked); err == nil {
			require.NoError(t, second.Close()) // js: nothing is refused
		} else if failureOf(err) == inUse {
			list, _ := Holders(t.Context(), tt.check, asked)
			r, err := Explain(t.Context(), reuse.Config{}, err)
			require.NoError(t, err)
			assert.Equal(t, holdersAt(&Report{Holders: list}, local), holdersAt(r, local))
			assert.Contains(t, r.Reason, asked)
			assert.NotEmpty(t, r.Advice)
		}
		require.NoError(t, l.Close())
		if r := check(); r != nil {
			assert.Empty(t, holdersAt(r, local), "%+v: %v", tt, r)
			assert.True(t, r.Free || len(r.Holders) > 0, "%+v: %v", tt, r)
		}
	}
}

// holdersAt leaves out other processes' connections from the same port of another address.
// A wildcard overlaps them.
func holdersAt(r *Report, local netip.AddrPort) (held []Holder) {
	for _, h := range r.Holders {
		if h.Local == local {
			held = append(held, h)
		}
	}
	return held
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
	advice := func() string {
		_, err := net.Listen("unix", path)
		require.Error(t, err)
		r, err := Explain(t.Context(), reuse.Config{}, err)
		require.NoError(t, err)
		return strings.Join(r.Advice, " ")
	}
	assert.NotContains(t, advice(), "Remove the file")
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	assert.Contains(t, advice(), "Remove the file")
}

// bindAs is what a user would do: Listen or ListenPacket.
func bindAs(c reuse.Config, network, address string) (io.Closer, error) {
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		return c.ListenPacket(context.Background(), network, address)
	}
	return c.Listen(context.Background(), network, address)
}
