//go:build darwin || freebsd || netbsd || openbsd

package group_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

// generations starts n processes with a group on one address, one after the other.
func generations(t *testing.T, n int) (list []*testproc.Process, address string) {
	address = "127.0.0.1:0"
	for range n {
		p := testproc.Start(t, "generation", "group", "Port", "tcp4", address)
		address = p.Ask("listen")
		list = append(list, p)
	}
	return list, address
}

func assertFails(t *testing.T, answer string) {
	t.Helper()
	assert.True(t, strings.HasPrefix(answer, "error: "), answer)
}

// Drain fails unless somebody who listens later has taken over, and lives.
func TestNotSucceeded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(old, next *testproc.Process)
	}{
		{"nobody has taken over", func(_, _ *testproc.Process) {}},
		{"and died", func(_, next *testproc.Process) {
			assert.Equal(t, "ok", next.Ask("takeover"))
			next.Kill()
		}},
		{"and drained", func(_, next *testproc.Process) {
			assert.Equal(t, "ok", next.Ask("takeover"))
			assertFails(t, next.Ask("drain"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			list, _ := generations(t, 2)
			old, next := list[0], list[1]
			tt.do(old, next)
			assertFails(t, old.Ask("drain"))
		})
	}
}

// Who has taken over is no successor of one that listens later.
func TestOlderSuccessor(t *testing.T) {
	t.Parallel()
	list, address := generations(t, 2)
	assert.Equal(t, "ok", list[1].Ask("takeover"))
	newest := testproc.Start(t, "generation", "group", "Port", "tcp4", address)
	require.Equal(t, address, newest.Ask("listen"))
	assertFails(t, newest.Ask("drain"))
	assert.Equal(t, "ok", list[0].Ask("drain"), "but it is the successor of the oldest")
	assert.NoError(t, ask(address))
}

// Nothing keeps connections away from the only one; Drain ends nevertheless.
func TestDrainUnderLoadAlone(t *testing.T) {
	t.Parallel()
	list, address := generations(t, 1)
	stop := load(address, 8)
	assertFails(t, list[0].Ask("drain"))
	stop()
}

// A claim that somebody has removed is no reason for Drain to fail, and TakeOver
// makes it anew.
func TestClaimRemoved(t *testing.T) { // not parallel: it changes the environment
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	list, address := generations(t, 1)
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 1, Handshake: time.Millisecond}.Listen(t.Context(), "tcp4", address)
	require.NoError(t, err)
	require.NoError(t, g.TakeOver(t.Context(), 0))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, group.DirectoryName())))
	require.NoError(t, g.TakeOver(t.Context(), 0))
	assert.Equal(t, "ok", list[0].Ask("drain"))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, group.DirectoryName())))
	require.NoError(t, g.Close())
}

// Of several newcomers only the last can take over, whatever the order in which they try.
func TestOnlyTheNewest(t *testing.T) {
	t.Parallel()
	list, address := generations(t, 4)
	assertFails(t, list[2].Ask("takeover"))
	assert.Equal(t, "ok", list[3].Ask("takeover"))
	assertFails(t, list[1].Ask("takeover"))
	for _, old := range list[:3] {
		assert.Equal(t, "ok", old.Ask("drain"))
	}
	assert.NoError(t, ask(address))
}

// A plain listener of the same address that was bound later gets the connections.
func TestStrangerIsNewer(t *testing.T) {
	t.Parallel()
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 1}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer g.Close()
	require.NoError(t, g.TakeOver(t.Context(), 0))
	require.NoError(t, g.TakeOver(t.Context(), 0), "which is still so")
	l, err := reuse.Config{Port: reuse.On}.Listen(t.Context(), "tcp4", g.Addr().String())
	require.NoError(t, err)
	err = g.TakeOver(t.Context(), 0)
	require.Error(t, err)
	require.NotErrorIs(t, err, errors.ErrUnsupported)
	require.NoError(t, l.Close())
	require.NoError(t, g.TakeOver(t.Context(), 0))
}

// No Accept sees the connection with which TakeOver makes sure, also if nobody
// accepts yet.
func TestProbeUnseen(t *testing.T) {
	t.Parallel()
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 2}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	early, err := net.Dial("tcp4", g.Addr().String())
	require.NoError(t, err)
	defer early.Close()
	for range 20 {
		require.NoError(t, g.TakeOver(t.Context(), 0))
	}
	seen := make(chan net.Addr, 100)
	served := make(chan error, 1)
	go func() {
		served <- g.Serve(func(l net.Listener) error {
			for {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				seen <- c.RemoteAddr()
				c.Close()
			}
		})
	}()
	late, err := net.Dial("tcp4", g.Addr().String())
	require.NoError(t, err)
	defer late.Close()
	got := map[string]bool{(<-seen).String(): true, (<-seen).String(): true}
	assert.Equal(t, map[string]bool{early.LocalAddr().String(): true, late.LocalAddr().String(): true}, got)
	require.NoError(t, g.Close())
	require.NoError(t, <-served)
	assert.Empty(t, seen)
}

// Without a directory for the claims a group serves, and does not take over; and a file
// is not trusted that others could have written.
func TestNoDirectory(t *testing.T) { // not parallel: it changes the environment
	for _, tt := range []struct {
		name string
		make func(path string) error
	}{
		{"a file", func(path string) error { return os.WriteFile(path, nil, 0o600) }},
		{"a directory for all", func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777))
		}},
		{"a link", func(path string) error { return os.Symlink(filepath.Dir(path), path) }},
		{"no temporary directory", func(path string) error { return os.Remove(filepath.Dir(path)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tmp")
			require.NoError(t, os.Mkdir(dir, 0o700))
			t.Setenv("TMPDIR", dir)
			require.NoError(t, tt.make(filepath.Join(dir, group.DirectoryName())))
			g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 1, Handshake: time.Millisecond}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			served := make(chan error, 1)
			go func() { served <- g.Serve(answer) }()
			require.NoError(t, ask(g.Addr().String()))
			err = g.TakeOver(t.Context(), 0)
			require.Error(t, err)
			require.NotErrorIs(t, err, errors.ErrUnsupported)
			require.Error(t, g.Drain(t.Context()))
			require.NoError(t, <-served)
		})
	}
}

// Nothing stays in the directory but the number of the last group.
func TestClaimsEnd(t *testing.T) { // not parallel: it changes the environment
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for range 3 {
		g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 1}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, g.TakeOver(t.Context(), 0))
		require.NoError(t, g.Close())
	}
	list, address := generations(t, 2)
	assert.Equal(t, "ok", list[1].Ask("takeover"))
	list[1].Kill() // leaves its claim, which the next removes
	next := testproc.Start(t, "generation", "group", "Port", "tcp4", address)
	require.Equal(t, address, next.Ask("listen"))
	assert.Equal(t, "ok", next.Ask("takeover"))
	entries, err := os.ReadDir(filepath.Join(dir, group.DirectoryName()))
	require.NoError(t, err)
	assert.Len(t, entries, 2, "the order and one claim: %v", entries)
}
