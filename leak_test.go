package reuse_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// Bad input gets the error that package net gives it, and never a panic.
func TestBadInput(t *testing.T) {
	t.Parallel()
	theirs := map[string]func(network, address string) error{
		"Listen": func(network, address string) error {
			l, err := net.Listen(network, address)
			if err == nil {
				return l.Close()
			}
			return err
		},
		"ListenPacket": func(network, address string) error {
			p, err := net.ListenPacket(network, address)
			if err == nil {
				return p.Close()
			}
			return err
		},
		"Dial to": func(network, address string) error {
			c, err := net.Dial(network, address)
			if err == nil {
				return c.Close()
			}
			return err
		},
	}
	theirs["ListenConfig"], theirs["Dialer"] = theirs["Listen"], theirs["Dial to"]
	failed := 0
	for _, c := range []reuse.Config{{}, {Addr: reuse.Prefer, Port: reuse.Off}, {Port: reuse.Prefer, DeferPort: reuse.Prefer}} {
		for name, call := range calls(t, c) {
			for _, tt := range []struct{ network, address string }{
				{"", "127.0.0.1:0"},
				{"telegraph", "127.0.0.1:0"},
				{"tcp\x00", "127.0.0.1:0"},
				{"tcp5", "127.0.0.1:0"},
				{"tcp4", ""},
				{"tcp4", "127.0.0.1"},
				{"tcp4", "127.0.0.1:65536"},
				{"tcp4", "127.0.0.1:-1"},
				{"tcp4", "127.0.0.1:\x00"},
				{"tcp4", "127.0.0.1\x00:0"},
				{"tcp4", "[::1]:0"},
				{"tcp6", "127.0.0.1:0"},
				{"tcp4", "[127.0.0.1:0"},
				{"tcp4", "::1:0"},
				{"udp4", "127.0.0.1:99999"},
				{"unix", string(make([]byte, 300))},
			} {
				got := call(tt.network, tt.address)
				if name == "Dial from" { // package net has nothing to compare
					if tt.network != "tcp4" || tt.address != "" {
						assert.Error(t, got, "%s %q %q", name, tt.network, tt.address)
					}
					continue
				}
				want := theirs[name](tt.network, tt.address)
				assert.Equal(t, want == nil, got == nil, "%s %q %q %v: %v, not %v", name, tt.network, tt.address, c, got, want)
				assert.IsType(t, errors.Unwrap(want), errors.Unwrap(got), "%s %q %q %v: %v, not %v", name, tt.network, tt.address, c, got, want)
				if got != nil {
					failed++
				}
			}
		}
	}
	assert.NotZero(t, failed)
}

// The kernel would take the part before the NUL for the path, and its file would
// stay behind.
func TestNULInPath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	for name, call := range calls(t, reuse.Config{}) {
		if name == "ListenConfig" || name == "Dialer" {
			continue // are package net's
		}
		assert.ErrorIs(t, call("unix", path+"\x00b"), syscall.EINVAL, name)
		assert.NoFileExists(t, path)
	}
}

// 10,000 failing calls of every kind leave no descriptor and no goroutine behind.
func TestNoLeaks(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" || runtime.GOOS == "wasip1" || runtime.GOOS == "plan9" {
		t.Skip("descriptors cannot be counted here")
	}
	remote := peer(t, "tcp4", "127.0.0.1:0")
	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	shared, err := reuse.Config{Port: reuse.On}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer shared.Close()
	held, err := reuse.Config{Port: reuse.On}.Dial(t.Context(), "tcp4", shared.Addr().String(), remote)
	require.NoError(t, err)
	defer discard(held)
	_, err = held.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the peer has closed its descriptor")
	// Asked after a minute, the peer's kernel would not know the connection any more.
	require.NoError(t, held.(*net.TCPConn).SetKeepAlive(false))
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	self := free.Addr().String()
	require.NoError(t, free.Close())

	tries := 10_000
	if testing.Short() {
		tries = 1_000
	}
	ctx := t.Context()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	failing, err := reuse.Config{Port: reuse.On}.ListenConfig(net.ListenConfig{
		Control: func(string, string, syscall.RawConn) error { return syscall.EPERM },
	})
	require.NoError(t, err)
	cases := map[string]func() error{
		"address in use": func() error {
			_, err := reuse.Config{Port: reuse.On}.Listen(ctx, "tcp4", busy.Addr().String())
			return err
		},
		"conflict": func() error {
			_, err := reuse.Config{Port: reuse.On, Exclusive: reuse.On}.Listen(ctx, "tcp4", "127.0.0.1:0")
			return err
		},
		"unknown network": func() error {
			_, err := reuse.Config{Port: reuse.On}.Listen(ctx, "telegraph", "127.0.0.1:0")
			return err
		},
		"unix": func() error {
			_, err := reuse.Config{Port: reuse.On}.Listen(ctx, "unix", "@reuse-test")
			return err
		},
		"no such address": func() error {
			_, err := reuse.Config{Port: reuse.On}.ListenPacket(ctx, "udp4", "192.0.2.250:0")
			return err
		},
		"port 0 in Control": func() error {
			lc, err := reuse.Config{Port: reuse.On}.ListenConfig(net.ListenConfig{})
			if err != nil {
				return nil
			}
			_, err = lc.ListenPacket(ctx, "udp4", "127.0.0.1:0")
			return err
		},
		"PortLB dialed": func() error {
			_, err := reuse.Config{PortLB: reuse.On}.Dial(ctx, "tcp4", "", remote)
			return err
		},
		"refused": func() error {
			_, err := reuse.Config{Port: reuse.On}.Dial(ctx, "tcp4", "", self)
			return err
		},
		"four-tuple in use": func() error {
			_, err := reuse.Config{Port: reuse.On}.Dial(ctx, "tcp4", shared.Addr().String(), remote)
			return err
		},
		"self": func() error {
			_, err := reuse.Config{Port: reuse.On}.Dial(ctx, "tcp4", self, self)
			return err
		},
		"NUL": func() error {
			_, err := reuse.Config{Port: reuse.Prefer}.Listen(ctx, "unix", "a\x00b")
			return err
		},
		"port out of range": func() error {
			_, err := reuse.Config{Port: reuse.On}.Dial(ctx, "tcp4", "127.0.0.1:65536", remote)
			return err
		},
		"DeferPort without an address": func() error {
			_, err := reuse.Config{DeferPort: reuse.On}.Dial(ctx, "tcp4", "", remote)
			return err
		},
		"UDP self": func() error {
			_, err := reuse.Config{Port: reuse.On}.Dial(ctx, "udp4", self, self)
			return err
		},
		"cancelled": func() error {
			_, err := reuse.Config{Port: reuse.On}.Dial(cancelled, "tcp4", "", remote)
			return err
		},
		"Control twice": func() error {
			l, err := failing.Listen(ctx, "tcp4", "127.0.0.1:0")
			if err == nil {
				l.Close()
			}
			return err
		},
		"inspect": func() error {
			_, err := reuse.Inspect(free.(*net.TCPListener))
			return err
		},
		"option": func() error { return reuse.Option(9).Supported() },
	}
	if runtime.GOOS != "linux" {
		delete(cases, "port 0 in Control") // which other kernels look after
	}
	for name, fail := range cases {
		require.Error(t, fail(), name)
		files, goroutines := openFiles(), runtime.NumGoroutine()
		for range tries {
			if fail() == nil {
				require.Fail(t, "succeeded", name)
			}
		}
		assert.Equal(t, files, openFiles(), name)
		assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines, name)
	}
}
