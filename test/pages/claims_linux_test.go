//go:build !android

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/testproc"
)

// These tests show on the running kernel what claims.md says of Linux and no other test
// does. Each has a network namespace of its own.

func TestMain(m *testing.M) {
	testproc.Main(m, map[string]testproc.Child{"serve": serve})
}

// serve is a server that accepts one connection and waits for its end.
func serve(_ []string, in *bufio.Scanner, out io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr().(*net.TCPAddr).Port)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(out, "accepted")
	in.Scan()
	return in.Err()
}

var (
	loopback = [4]byte{127, 0, 0, 1}
	group224 = [4]byte{224, 1, 2, 3}
)

// open returns a TCP or UDP socket whose reads give up after 10 s.
func open(t testing.TB, kind int, options ...int) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) }) // EBADF if the test has closed it
	require.NoError(t, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	for _, o := range options {
		require.NoError(t, unix.SetsockoptInt(s, unix.SOL_SOCKET, o, 1))
	}
	return s
}

// bindTo opens a socket and binds it; to returns the port if it was 0.
func bindTo(t testing.TB, kind int, to *unix.SockaddrInet4, options ...int) int {
	t.Helper()
	s := open(t, kind, options...)
	require.NoError(t, unix.Bind(s, to))
	name, err := unix.Getsockname(s)
	require.NoError(t, err)
	to.Port = name.(*unix.SockaddrInet4).Port
	return s
}

func receive(t testing.TB, s int) string {
	t.Helper()
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(s, b, 0)
	require.NoError(t, err)
	return string(b[:n])
}

// state is what the kernel has at a local port, without listeners, and how long its timer
// still runs.
func state(t testing.TB, port int) (state string, timer time.Duration) {
	text, err := os.ReadFile("/proc/self/net/tcp")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[3] != "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			n, err := strconv.ParseInt(f[5][strings.Index(f[5], ":")+1:], 16, 64) // hundredths of a second
			require.NoError(t, err)
			return f[3], time.Duration(n) * 10 * time.Millisecond
		}
	}
	return "", 0
}

const timeWait = "06"

func await(t testing.TB, port int, want string) (timer time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool {
		var is string
		is, timer = state(t, port)
		return is == want
	}, 10*time.Second, time.Millisecond)
	return timer
}

// The kernel closes the connection of a process that is killed, and keeps it in
// TIME_WAIT, which lasts 60 s whatever the MSL. If the process has left something
// unread, the kernel resets the connection and keeps nothing.
func TestKilledProcess(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, unread := range []bool{false, true} {
		child := testproc.Start(t, "serve")
		port, err := strconv.Atoi(child.Receive())
		require.NoError(t, err)
		c := open(t, unix.SOCK_STREAM)
		require.NoError(t, unix.Connect(c, &unix.SockaddrInet4{Addr: loopback, Port: port}))
		require.Equal(t, "accepted", child.Receive())
		if unread {
			_, err := unix.Write(c, []byte("hello"))
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				left, err := unix.IoctlGetInt(c, unix.SIOCOUTQ)
				return err == nil && left == 0 // the other side has it
			}, 10*time.Second, time.Millisecond)
		}
		child.Kill()
		n, err := unix.Read(c, make([]byte, 1))
		if unread {
			require.ErrorIs(t, err, unix.ECONNRESET)
			await(t, port, "")
			continue
		}
		require.NoError(t, err)
		require.Zero(t, n)
		require.NoError(t, unix.Close(c))
		timer := await(t, port, timeWait)
		assert.LessOrEqual(t, timer, 60*time.Second)
		assert.Greater(t, timer, 30*time.Second, "long before it ends")
	}
}

// Lingering for some seconds leaves TIME_WAIT as it is. Lingering for none resets the
// connection and leaves nothing.
func TestLinger(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, tt := range []struct {
		linger unix.Linger
		state  string
		err    error
	}{
		{unix.Linger{}, timeWait, nil},
		{unix.Linger{Onoff: 1, Linger: 5}, timeWait, nil},
		{unix.Linger{Onoff: 1}, "", unix.ECONNRESET},
	} {
		at := &unix.SockaddrInet4{Addr: loopback}
		l := bindTo(t, unix.SOCK_STREAM, at)
		require.NoError(t, unix.Listen(l, 1))
		c := open(t, unix.SOCK_STREAM)
		require.NoError(t, unix.Connect(c, at))
		server, _, err := unix.Accept(l)
		require.NoError(t, err)
		require.NoError(t, unix.SetsockoptLinger(server, unix.SOL_SOCKET, unix.SO_LINGER, &tt.linger))
		require.NoError(t, unix.Close(server))
		_, err = unix.Read(c, make([]byte, 1))
		require.ErrorIs(t, err, tt.err, "%+v", tt.linger)
		require.NoError(t, unix.Close(c))
		await(t, at.Port, tt.state)
	}
}

// A socket that is bound and does not listen refuses connections, and gets none while
// another one listens, though it was bound last and shares.
func TestBoundOnly(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	at := &unix.SockaddrInet4{Addr: loopback}
	l := bindTo(t, unix.SOCK_STREAM, at, unix.SO_REUSEPORT)
	require.ErrorIs(t, unix.Connect(open(t, unix.SOCK_STREAM), at), unix.ECONNREFUSED)
	require.NoError(t, unix.Listen(l, 50))
	bindTo(t, unix.SOCK_STREAM, at, unix.SO_REUSEPORT)
	for range 40 {
		require.NoError(t, unix.Connect(open(t, unix.SOCK_STREAM), at))
		a, _, err := unix.Accept(l)
		require.NoError(t, err)
		require.NoError(t, unix.Close(a))
	}
}

// Datagrams of a peer go to the socket that is connected to it, before a younger one that
// takes all others.
func TestConnectedFirst(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		peer, at := &unix.SockaddrInet4{Addr: loopback}, &unix.SockaddrInet4{Addr: loopback}
		known, stranger := bindTo(t, unix.SOCK_DGRAM, peer), open(t, unix.SOCK_DGRAM)
		connected := bindTo(t, unix.SOCK_DGRAM, at, option)
		require.NoError(t, unix.Connect(connected, peer))
		younger := bindTo(t, unix.SOCK_DGRAM, at, option)
		for range 10 {
			require.NoError(t, unix.Sendto(known, []byte("peer"), 0, at))
			require.NoError(t, unix.Sendto(stranger, []byte("stranger"), 0, at))
			assert.Equal(t, "peer", receive(t, connected))
			assert.Equal(t, "stranger", receive(t, younger))
		}
	}
}

// Every socket on a group's port gets each datagram, however it shares and bound to the
// group or to 0.0.0.0; on Linux also one that has not joined, unless it clears
// IP_MULTICAST_ALL. Broadcast is the same.
func TestMulticastCopies(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	join := &unix.IPMreqn{Multiaddr: group224, Ifindex: 1} // lo
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		at := &unix.SockaddrInet4{}
		joined := bindTo(t, unix.SOCK_DGRAM, at, option)
		to := &unix.SockaddrInet4{Addr: group224, Port: at.Port}
		onGroup := bindTo(t, unix.SOCK_DGRAM, to, option)
		stranger, deaf := bindTo(t, unix.SOCK_DGRAM, at, option), bindTo(t, unix.SOCK_DGRAM, at, option)
		require.NoError(t, unix.SetsockoptInt(deaf, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
		for _, s := range []int{joined, onGroup} {
			require.NoError(t, unix.SetsockoptIPMreqn(s, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, join))
		}
		sender := open(t, unix.SOCK_DGRAM, unix.SO_BROADCAST)
		require.NoError(t, unix.SetsockoptIPMreqn(sender, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, join))
		require.NoError(t, unix.Sendto(sender, []byte("group"), 0, to))
		require.NoError(t, unix.Sendto(sender, []byte("broadcast"), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 255, 255, 255}, Port: at.Port}))
		assert.Equal(t, "group", receive(t, onGroup))
		for _, s := range []int{joined, stranger} {
			assert.Equal(t, "group", receive(t, s))
			assert.Equal(t, "broadcast", receive(t, s))
		}
		assert.Equal(t, "broadcast", receive(t, deaf))
	}
}

// Of two sockets that are bound with SO_REUSEADDR the first to listen wins.
func TestFirstToListen(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for winner := range 2 {
		at := &unix.SockaddrInet4{Addr: loopback}
		s := []int{bindTo(t, unix.SOCK_STREAM, at, unix.SO_REUSEADDR), bindTo(t, unix.SOCK_STREAM, at, unix.SO_REUSEADDR)}
		require.NoError(t, unix.Listen(s[winner], 1))
		require.ErrorIs(t, unix.Listen(s[1-winner], 1), unix.EADDRINUSE)
	}
}

// SO_REUSEPORT also counts on a socket that sets it after its own bind: the next one may
// share.
func TestSetLate(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		at := &unix.SockaddrInet4{Addr: loopback}
		first := bindTo(t, kind, at)
		require.ErrorIs(t, unix.Bind(open(t, kind, unix.SO_REUSEPORT), at), unix.EADDRINUSE)
		require.NoError(t, unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		bindTo(t, kind, at, unix.SO_REUSEPORT)
	}
}
