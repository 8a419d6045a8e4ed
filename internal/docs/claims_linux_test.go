//go:build !android && !ios

package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// These tests show on the running kernel what claims.md says of Linux and no
// other test does. Each has a network namespace of its own.

// socket returns a TCP or UDP socket whose reads give up after 10 s.
func socket(t testing.TB, proto semantics.Proto, options ...int) int {
	t.Helper()
	kind := unix.SOCK_STREAM
	if proto == semantics.UDP {
		kind = unix.SOCK_DGRAM
	}
	s, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) }) // EBADF if the test has closed it
	require.NoError(t, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	for _, o := range options {
		require.NoError(t, unix.SetsockoptInt(s, unix.SOL_SOCKET, o, 1))
	}
	return s
}

func loopback(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}
}

func anywhere(port int) *unix.SockaddrInet4 { return &unix.SockaddrInet4{Port: port} }

func portOf(t testing.TB, s int) int {
	t.Helper()
	name, err := unix.Getsockname(s)
	require.NoError(t, err)
	return name.(*unix.SockaddrInet4).Port
}

func receive(t testing.TB, s int) string {
	t.Helper()
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(s, b, 0)
	require.NoError(t, err)
	return string(b[:n])
}

func send(t testing.TB, from int, text string, to unix.Sockaddr) {
	t.Helper()
	require.NoError(t, unix.Sendto(from, []byte(text), 0, to))
}

// left reads what the kernel has at a local port beside listeners: the state and
// how long its timer still runs.
func left(t testing.TB, port int) (state string, timer time.Duration) {
	text, err := os.ReadFile("/proc/self/net/tcp")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[3] == "0A" || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		_, ticks, _ := strings.Cut(f[5], ":")
		n, err := strconv.ParseInt(ticks, 16, 64) // hundredths of a second
		require.NoError(t, err)
		return f[3], time.Duration(n) * 10 * time.Millisecond
	}
	return "", 0
}

const timeWait = "06"

// A process with a connection is killed: the kernel closes the connection for it,
// and keeps it in TIME_WAIT, which on Linux lasts 60 s whatever the MSL. If there
// is something that the process has not read, it is reset, and nothing is kept.
func TestKilledProcess(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, unread := range []bool{false, true} {
		child := testproc.Start(t, "serve")
		address, err := netip.ParseAddrPort(child.Receive())
		require.NoError(t, err)
		c := socket(t, semantics.TCP)
		require.NoError(t, unix.Connect(c, loopback(int(address.Port()))))
		require.Equal(t, "accepted", child.Receive())
		if unread {
			_, err := unix.Write(c, []byte("hello"))
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				left, err := unix.IoctlGetInt(c, unix.SIOCOUTQ)
				return err == nil && left == 0 // it is in the other's queue
			}, 10*time.Second, time.Millisecond)
		}
		child.Kill()
		n, err := unix.Read(c, make([]byte, 1))
		if unread {
			require.ErrorIs(t, err, unix.ECONNRESET)
			state, _ := left(t, int(address.Port()))
			require.Empty(t, state)
			continue
		}
		require.NoError(t, err, "the kernel has closed what the process had")
		require.Zero(t, n)
		require.NoError(t, unix.Close(c))
		var timer time.Duration
		require.Eventually(t, func() bool {
			var state string
			state, timer = left(t, int(address.Port()))
			return state == timeWait
		}, 10*time.Second, time.Millisecond)
		assert.LessOrEqual(t, timer, 60*time.Second)
		assert.Greater(t, timer, 30*time.Second, "long before it ends")
	}
}

// Lingering for some seconds leaves TIME_WAIT as it is. Lingering for none resets
// the connection and leaves nothing.
func TestLinger(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, tt := range []struct {
		name   string
		linger unix.Linger
		state  string
	}{
		{"off", unix.Linger{}, timeWait},
		{"5 s", unix.Linger{Onoff: 1, Linger: 5}, timeWait},
		{"0 s", unix.Linger{Onoff: 1}, ""},
	} {
		l := socket(t, semantics.TCP)
		require.NoError(t, unix.Bind(l, loopback(0)))
		require.NoError(t, unix.Listen(l, 1))
		port := portOf(t, l)
		c := socket(t, semantics.TCP)
		require.NoError(t, unix.Connect(c, loopback(port)))
		server, _, err := unix.Accept(l)
		require.NoError(t, err)
		require.NoError(t, unix.SetsockoptLinger(server, unix.SOL_SOCKET, unix.SO_LINGER, &tt.linger))
		require.NoError(t, unix.Close(server))
		n, err := unix.Read(c, make([]byte, 1))
		if tt.state == "" {
			require.ErrorIs(t, err, unix.ECONNRESET, tt.name)
		} else {
			require.NoError(t, err, tt.name)
			require.Zero(t, n, tt.name)
		}
		require.NoError(t, unix.Close(c))
		require.Eventually(t, func() bool {
			state, _ := left(t, port)
			return state == tt.state
		}, 10*time.Second, time.Millisecond, tt.name)
	}
}

// A socket that is bound and does not listen refuses connections, and gets none
// beside a listener, though it was bound last and shares.
func TestBoundOnly(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	l := socket(t, semantics.TCP, unix.SO_REUSEPORT)
	require.NoError(t, unix.Bind(l, loopback(0)))
	to := loopback(portOf(t, l))
	c := socket(t, semantics.TCP)
	require.ErrorIs(t, unix.Connect(c, to), unix.ECONNREFUSED, "nobody listens")

	require.NoError(t, unix.Listen(l, 50))
	bound := socket(t, semantics.TCP, unix.SO_REUSEPORT)
	require.NoError(t, unix.Bind(bound, to))
	for range 40 {
		c := socket(t, semantics.TCP)
		require.NoError(t, unix.Connect(c, to))
	}
	for range 40 {
		a, _, err := unix.Accept(l)
		require.NoError(t, err)
		require.NoError(t, unix.Close(a))
	}
}

// Datagrams of a peer go to the socket that is connected to it, before a younger
// one that takes all others.
func TestConnectedFirst(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		peer, stranger := socket(t, semantics.UDP), socket(t, semantics.UDP)
		require.NoError(t, unix.Bind(peer, loopback(0)))
		require.NoError(t, unix.Bind(stranger, loopback(0)))
		connected := socket(t, semantics.UDP, option)
		require.NoError(t, unix.Bind(connected, loopback(0)))
		to := loopback(portOf(t, connected))
		require.NoError(t, unix.Connect(connected, loopback(portOf(t, peer))))
		open := socket(t, semantics.UDP, option)
		require.NoError(t, unix.Bind(open, to))
		for range 10 {
			send(t, peer, "peer", to)
			send(t, stranger, "stranger", to)
			assert.Equal(t, "peer", receive(t, connected))
			assert.Equal(t, "stranger", receive(t, open))
		}
	}
}

// Every socket on a group's port gets each datagram, however it shares and bound
// to the group or to 0.0.0.0; on Linux one that has not joined does, too.
// Broadcast is the same.
func TestMulticastCopies(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	group := [4]byte{224, 1, 2, 3}
	join := &unix.IPMreqn{Multiaddr: group, Ifindex: 1} // lo
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		onGroup, joined, stranger := socket(t, semantics.UDP, option), socket(t, semantics.UDP, option), socket(t, semantics.UDP, option)
		require.NoError(t, unix.Bind(joined, anywhere(0)))
		port := portOf(t, joined)
		require.NoError(t, unix.SetsockoptIPMreqn(joined, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, join))
		require.NoError(t, unix.Bind(onGroup, &unix.SockaddrInet4{Addr: group, Port: port}))
		require.NoError(t, unix.SetsockoptIPMreqn(onGroup, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, join))
		require.NoError(t, unix.Bind(stranger, anywhere(port)))

		sender := socket(t, semantics.UDP, unix.SO_BROADCAST)
		require.NoError(t, unix.SetsockoptIPMreqn(sender, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, join))
		for i := range 10 {
			text := "datagram " + strconv.Itoa(i)
			send(t, sender, text, &unix.SockaddrInet4{Addr: group, Port: port})
			for _, s := range []int{onGroup, joined, stranger} {
				assert.Equal(t, text, receive(t, s))
			}
		}
		send(t, sender, "broadcast", &unix.SockaddrInet4{Addr: [4]byte{127, 255, 255, 255}, Port: port})
		assert.Equal(t, "broadcast", receive(t, joined))
		assert.Equal(t, "broadcast", receive(t, stranger))
	}
}

// A socket on 0.0.0.0 that has not joined, and says so, gets nothing of a group.
func TestMulticastAll(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	group := [4]byte{224, 1, 2, 3}
	join := &unix.IPMreqn{Multiaddr: group, Ifindex: 1}
	for all, want := range []string{"unicast", "group"} {
		joined, other := socket(t, semantics.UDP, unix.SO_REUSEADDR), socket(t, semantics.UDP, unix.SO_REUSEADDR)
		require.NoError(t, unix.Bind(joined, anywhere(0)))
		require.NoError(t, unix.SetsockoptIPMreqn(joined, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, join))
		port := portOf(t, joined)
		require.NoError(t, unix.SetsockoptInt(other, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, all))
		require.NoError(t, unix.Bind(other, anywhere(port))) // the youngest, which gets unicast
		sender := socket(t, semantics.UDP)
		require.NoError(t, unix.SetsockoptIPMreqn(sender, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, join))
		send(t, sender, "group", &unix.SockaddrInet4{Addr: group, Port: port})
		assert.Equal(t, "group", receive(t, joined))
		send(t, sender, "unicast", loopback(port))
		assert.Equal(t, want, receive(t, other), "IP_MULTICAST_ALL %d", all)
	}
}

// The same two addresses and ports a second time: the error that the rules name.
func TestSameTuple(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	linux, err := semantics.Find("linux")
	require.NoError(t, err)
	l := socket(t, semantics.TCP)
	require.NoError(t, unix.Bind(l, loopback(0)))
	require.NoError(t, unix.Listen(l, 5))
	to := loopback(portOf(t, l))
	first, second := socket(t, semantics.TCP, unix.SO_REUSEPORT), socket(t, semantics.TCP, unix.SO_REUSEPORT)
	require.NoError(t, unix.Bind(first, loopback(0)))
	require.NoError(t, unix.Bind(second, loopback(portOf(t, first))))
	require.NoError(t, unix.Connect(first, to))
	err = unix.Connect(second, to)
	require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
	assert.Equal(t, linux.SameTuple().Err, unix.ErrnoName(unix.EADDRNOTAVAIL))
}

// Of two sockets that are bound with SO_REUSEADDR the first to listen wins.
func TestFirstToListen(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for winner := range 2 {
		s := []int{socket(t, semantics.TCP, unix.SO_REUSEADDR), socket(t, semantics.TCP, unix.SO_REUSEADDR)}
		require.NoError(t, unix.Bind(s[0], loopback(0)))
		require.NoError(t, unix.Bind(s[1], loopback(portOf(t, s[0]))))
		require.NoError(t, unix.Listen(s[winner], 1))
		require.ErrorIs(t, unix.Listen(s[1-winner], 1), unix.EADDRINUSE)
	}
}

// SO_REUSEPORT counts on a socket that sets it after its own bind, too: the next
// one may share.
func TestSetLate(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
		first := socket(t, proto)
		require.NoError(t, unix.Bind(first, loopback(0)))
		to := loopback(portOf(t, first))
		second := socket(t, proto, unix.SO_REUSEPORT)
		require.ErrorIs(t, unix.Bind(second, to), unix.EADDRINUSE, "%v", proto)
		require.NoError(t, unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		require.NoError(t, unix.Bind(second, to), "%v", proto)
	}
}

// SO_REUSEPORT shares by chance, not evenly: of two listeners neither gets
// everything, and a client's next connection need not go to the other one.
func TestSpreadByHash(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	const dials = 200
	var l [2]int
	port := 0
	for i := range l {
		l[i] = socket(t, semantics.TCP, unix.SO_REUSEPORT)
		require.NoError(t, unix.Bind(l[i], loopback(port)))
		port = portOf(t, l[i])
		require.NoError(t, unix.Listen(l[i], dials))
		require.NoError(t, unix.SetNonblock(l[i], true))
	}
	got := [2]int{}
	turns := 0
	last := -1
	for range dials {
		c := socket(t, semantics.TCP)
		require.NoError(t, unix.Connect(c, loopback(port)))
		require.Eventually(t, func() bool {
			for i := range l {
				if a, _, err := unix.Accept(l[i]); err == nil {
					got[i]++
					if i != last {
						turns++
					}
					last = i
					return unix.Close(a) == nil
				}
			}
			return false
		}, 10*time.Second, time.Millisecond)
		require.NoError(t, unix.Close(c))
	}
	assert.Equal(t, dials, got[0]+got[1])
	assert.Positive(t, got[0])
	assert.Positive(t, got[1])
	assert.Less(t, turns, dials, "they do not take turns")
}
