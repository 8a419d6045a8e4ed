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

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
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
	if !testproc.Netns(t) {
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
	if !testproc.Netns(t) {
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
	for _, network := range []string{"unix", "unixgram", "unixpacket", "ip", "ip4"} {
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
	if !testproc.Netns(t) {
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
	b := append(make([]byte, 0, messageSize), inetMessage(unix.AF_INET6, ip)...)
	b[40] = 1 // the loopback interface
	var s socket
	require.NoError(t, s.parse(b))
	s.addZone()
	assert.Equal(t, "fe80::1%lo", s.local.Addr().String())
}

// inetMessage is a struct inet_diag_msg of a listener on port 80.
func inetMessage(family uint8, ip netip.Addr) []byte {
	b := make([]byte, messageSize)
	b[0], b[1] = family, tcpListen
	b[5] = 80
	copy(b[8:24], ip.AsSlice())
	return b
}

// An answer that is cut short, or says nonsense, is an error and nothing worse.
func TestCutShort(t *testing.T) {
	t.Parallel()
	whole := append(inetMessage(unix.AF_INET, netip.MustParseAddr("127.0.0.1")), 5, 0, attrV6Only, 0, 1, 0, 0, 0)
	ask := func(data []byte) (n int, err error) {
		c := nltest.Dial(func([]netlink.Message) ([]netlink.Message, error) {
			return []netlink.Message{
				{Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Multi}, Data: data},
				{Header: netlink.Header{Type: netlink.Done, Flags: netlink.Multi}},
			}, nil
		})
		defer c.Close()
		err = dumpFrom(t.Context(), c, semantics.TCP, unix.AF_INET, 80, func(*socket) { n++ })
		return n, err
	}
	n, err := ask(whole)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	for size := range len(whole) {
		n, err := ask(whole[:size])
		if size == messageSize || size > messageSize && size < messageSize+unix.SizeofNlAttr {
			require.NoError(t, err) // without the attribute
			continue
		}
		if size >= messageSize+5 {
			require.NoError(t, err) // without padding
			continue
		}
		assert.ErrorIs(t, err, errShort, "%d bytes", size)
		assert.Zero(t, n)
	}
	whole[0] = 77
	_, err = ask(whole)
	assert.ErrorContains(t, err, "family 77")
	c := nltest.Dial(func([]netlink.Message) ([]netlink.Message, error) {
		return nltest.Error(int(unix.EPERM), []netlink.Message{{}})
	})
	defer c.Close()
	err = dumpFrom(t.Context(), c, semantics.TCP, unix.AF_INET, 80, func(*socket) {})
	assert.ErrorIs(t, err, syscall.EPERM)
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// 1,000 calls at a time all find the holder, and leave nothing open.
func TestConcurrent(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true}
	fd, at, err := s.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	_, err = Holders(t.Context(), "tcp4", at.String()) // the poller's descriptors stay
	require.NoError(t, err)
	before := descriptors(t)
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
	assert.Equal(t, before, descriptors(t))
}

// Which kernels show what is bound only is told by their release.
func TestOlderThan(t *testing.T) {
	t.Parallel()
	for release, older := range map[string]bool{
		"5.10.0-30-amd64": true, "6.1": true, "6.7.12": true, "6.8.0": false, "6.18.44-x": false, "10.0": false, "": false, "nonsense": false,
	} {
		assert.Equal(t, older, olderThan(release, 6, 8), release)
	}
}

// Without descriptors, or without /proc, nothing is invented.
func TestStarved(t *testing.T) {
	if !testproc.Netns(t) {
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

// What is allocated depends on the answer, and not on what else the machine has.
func TestAllocations(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true}
	fd, at, err := s.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	ask := func() {
		list, err := Holders(t.Context(), "tcp4", at.String())
		if err != nil || len(list) != 1 {
			panic(err)
		}
	}
	before := testing.AllocsPerRun(20, ask)
	crowd := testproc.Start(t, "crowd", "3000", "9")
	require.Equal(t, "open", crowd.Receive())
	with := testing.AllocsPerRun(20, ask)
	assert.InDelta(t, before, with, 50, "with 3,000 sockets more")

	// The last of them is behind all the descriptors of its process.
	list, err := Holders(t.Context(), "tcp4", "127.0.1.9:12999")
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.NotZero(t, list[0].PID)
	assert.Equal(t, ownName(t), list[0].Command)
}
