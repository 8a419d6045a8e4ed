package inuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// harmless fails if text could do something to a terminal.
func harmless(t testing.TB, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsGraphic(r) {
			t.Fatalf("%q holds %U", text, r)
		}
	}
}

// Whatever a process calls itself, a report is what it was.
func TestCommandNames(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, name := range []string{"\x1b[2J\x1b[31mroot", "a\nFree: 1", "tab\tcr\rbell\a", "\x9b31m\x80\xff", "\u202eevil", `"quoted\"`, "\n", "spa ce"} {
		at, pid := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true, Name: []byte(name), UID: os.Getuid()}.start(t)
		r := refused(t, reuse.Config{}, "tcp4", at.String())
		require.Len(t, r.Holders, 1)
		assert.Equal(t, pid, r.Holders[0].PID)
		if len(name) < 16 && name != "\n" {
			assert.Equal(t, name, r.Holders[0].Command)
		}
		text := r.String()
		harmless(t, text)
		harmless(t, r.Holders[0].String())
		harmless(t, r.Reason+strings.Join(r.Advice, ""))
		assert.Equal(t, 1, strings.Count(text, "\nLISTEN "), text)
		assert.NotContains(t, text, "\nFree")
	}
}

// A process that ends while it is looked at is found or not; nothing fails.
func TestProcessesEnd(t *testing.T) {
	if !netns(t) {
		return
	}
	for range 20 {
		p := testproc.Start(t, "flicker")
		var text string
		var pid int
		_, err := fmt.Sscan(p.Receive(), &text, &pid)
		require.NoError(t, err)
		list, err := Holders(t.Context(), "tcp4", text)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, pid, list[0].PID)
		p.Send("end")
		for len(list) > 0 {
			list, err = Holders(t.Context(), "tcp4", text)
			require.NoError(t, err)
			for _, h := range list {
				assert.Contains(t, []int{0, pid}, h.PID)
				if h.PID == 0 {
					assert.Empty(t, h.Command)
				}
			}
		}
	}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]string{
		{"tcp", ""}, {"tcp", "127.0.0.1"}, {"tcp", "127.0.0.1:"}, {"tcp", "127.0.0.1:0"}, {"tcp", ":0"},
		{"tcp", "127.0.0.1:65536"}, {"tcp", "127.0.0.1:-1"}, {"tcp", "[::1:80"}, {"tcp", "::1:80"}, {"tcp", "\x00:80"},
		{"tcp4", "[::1]:80"}, {"tcp6", "127.0.0.1:80"}, {"udp6", "0.0.0.0:80"}, {"", "127.0.0.1:80"}, {"6", "127.0.0.1:80"},
		{"tcp5", "127.0.0.1:80"}, {"ip4:icmp", "127.0.0.1"}, {"tcp", "127.0.0.1:no such service"}, {"\x1b[2J", ":80"},
	} {
		list, err := Holders(t.Context(), tt[0], tt[1])
		require.Error(t, err, "%q", tt)
		assert.True(t, strings.HasPrefix(err.Error(), "inuse: "), "%v", err)
		assert.Empty(t, list)
	}
	_, err := Holders(t.Context(), "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, os.ErrInvalid)
	var unknown net.UnknownNetworkError
	_, err = Holders(t.Context(), "tcp5", "127.0.0.1:80")
	assert.ErrorAs(t, err, &unknown)
	for _, network := range []string{"ip", "ip4"} {
		_, err = Holders(t.Context(), network, "/x")
		assert.ErrorIs(t, err, errors.ErrUnsupported)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Holders(over, "tcp", "127.0.0.1:80")
	assert.ErrorIs(t, err, context.Canceled)
}

// Names of hosts and services are resolved as package net does it.
func TestNames(t *testing.T) {
	if !netns(t) {
		return
	}
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:80"), Listen: true}
	fd, _, err := s.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	for _, address := range []string{"localhost:80", "127.0.0.1:http", ":http", "[::]:80", "0.0.0.0:80", "[::ffff:127.0.0.1]:80"} {
		list, err := Holders(t.Context(), "tcp", address)
		require.NoError(t, err)
		assert.Len(t, list, 1, address)
	}
	for _, address := range []string{"[::1]:80", "127.0.0.2:80", "127.0.0.1:81"} {
		list, err := Holders(t.Context(), "tcp", address)
		require.NoError(t, err)
		assert.Empty(t, list, address)
	}
	for _, network := range []string{"tcp6", "udp"} {
		list, err := Holders(t.Context(), network, "[::]:80")
		require.NoError(t, err)
		assert.Empty(t, list, network)
	}
}

// A link-local address is another one on each interface.
func TestZones(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr("fe80::1")
	a := target{proto: semantics.TCP, local: netip.AddrPortFrom(ip.WithZone("eth0"), 80)}
	assert.True(t, a.overlaps(ip.WithZone("eth0"), false))
	assert.False(t, a.overlaps(ip.WithZone("eth1"), false))
	assert.True(t, a.overlaps(ip, false))
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// 1,000 calls at a time all find the holder, and leave nothing open.
func TestConcurrent(t *testing.T) {
	if !netns(t) {
		return
	}
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true}
	fd, at, err := s.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	_, err = Holders(t.Context(), "tcp4", at.String()) // the poller's descriptors stay
	require.NoError(t, err)
	before := openDescriptors(t)
	n := 1000
	if testing.Short() {
		n = 100
	}
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			list, err := Holders(t.Context(), "tcp4", at.String())
			if assert.NoError(t, err) && assert.Len(t, list, 1) {
				assert.Equal(t, os.Getpid(), list[0].PID)
			}
		})
	}
	calls.Wait()
	assert.Equal(t, before, openDescriptors(t))
}

// Which kernels show what is bound only is told by their release.
func TestOlderThan68(t *testing.T) {
	t.Parallel()
	for release, older := range map[string]bool{
		"5.10.0-30-amd64": true, "6.1": true, "6.7.12": true, "6.8.0": false, "6.18.44-x": false, "10.0": false, "": false, "nonsense": false,
	} {
		assert.Equal(t, older, olderThan68(release), release)
	}
}

// Without descriptors, or without /proc, nothing is invented.
func TestStarved(t *testing.T) {
	if !netns(t) {
		return
	}
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true}
	fd, at, err := s.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	_, err = Holders(t.Context(), "tcp4", at.String())
	require.NoError(t, err)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	for spare := range 4 {
		low := limit
		low.Cur = uint64(fd + 1 + spare) // fd was the lowest that was free
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
		list, err := Holders(t.Context(), "tcp4", at.String())
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		if err != nil {
			assert.ErrorIs(t, err, syscall.EMFILE)
			continue
		}
		require.Len(t, list, 1)
		assert.Equal(t, os.Getpid(), list[0].PID)
	}
}

// A context ends the search.
func TestContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err := Holders(ctx, "tcp4", "127.0.0.1:80")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	list := []Holder{{}}
	assert.ErrorIs(t, owners(ctx, list, []uint32{1}), context.DeadlineExceeded)
}

// A socket is found behind all the other descriptors of its process.
func TestLastOfMany(t *testing.T) {
	if !netns(t) {
		return
	}
	crowd := testproc.Start(t, "crowd", "3000", "9")
	require.Equal(t, "open", crowd.Receive())
	list, err := Holders(t.Context(), "tcp4", "127.0.1.9:12999")
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.NotZero(t, list[0].PID)
	assert.Equal(t, ownName(t), list[0].Command)
}
