package measure_test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// These tests show on the running kernel what docs/claims.md says of Linux and no other
// test does. Each has a network namespace of its own.

func await(t testing.TB, port int, want semantics.State) (timeWait time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool {
		var is semantics.State
		is, timeWait = connection(t, port)
		return is == want
	}, 30*time.Second, time.Millisecond)
	return timeWait
}

// The kernel closes the connection of a process that is killed, and keeps it in
// TIME_WAIT, which lasts 60 s whatever the MSL. If the process has left something
// unread, the kernel resets the connection and keeps nothing.
func TestKilledProcess(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, unread := range []bool{false, true} {
		child := testproc.Start(t, "accept one", map[bool][]string{true: {"unread"}}[unread]...)
		port, err := strconv.Atoi(child.Receive())
		require.NoError(t, err)
		c, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", port))
		require.NoError(t, err)
		defer c.Close()
		if unread {
			_, err := c.Write([]byte("ab")) // one segment, of which the child reads a byte
			require.NoError(t, err)
		}
		require.Equal(t, "accepted", child.Receive())
		child.Kill()
		_, err = c.Read(make([]byte, 1))
		if unread {
			require.ErrorIs(t, err, unix.ECONNRESET)
			await(t, port, 0)
			continue
		}
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, c.Close())
		timer := await(t, port, semantics.TimeWait)
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
		seconds int // negative: without SO_LINGER
		state   semantics.State
		err     error
	}{
		{-1, semantics.TimeWait, io.EOF}, {5, semantics.TimeWait, io.EOF}, {0, 0, unix.ECONNRESET},
	} {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		c, err := net.Dial("tcp4", l.Addr().String())
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, server.(*net.TCPConn).SetLinger(tt.seconds))
		require.NoError(t, server.Close())
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, tt.err, "%+v", tt)
		require.NoError(t, c.Close())
		await(t, l.Addr().(*net.TCPAddr).Port, tt.state)
	}
}

// open opens the socket of a binding, on a port that the kernel chooses if it is 0. Reads
// give up after 10 s.
func open(t testing.TB, b semantics.Binding, options semantics.Options, port int) (s int, at *unix.SockaddrInet4) {
	t.Helper()
	b.Options = options
	s, err := measure.Open(b, uint16(port))
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) })
	require.NoError(t, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	name, err := unix.Getsockname(s)
	require.NoError(t, err)
	return s, name.(*unix.SockaddrInet4)
}

// A socket that is bound and does not listen refuses connections. It gets none while
// another one listens, even if it was bound last and shares.
func TestBoundOnly(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	l, at := open(t, bound(measure.Specific), semantics.Port, 0)
	address := fmt.Sprint("127.0.0.1:", at.Port)
	_, err := net.Dial("tcp4", address)
	require.ErrorIs(t, err, unix.ECONNREFUSED)
	require.NoError(t, unix.Listen(l, 50))
	open(t, bound(measure.Specific), semantics.Port, at.Port)
	for range 40 {
		c, err := net.Dial("tcp4", address)
		require.NoError(t, err)
		defer c.Close()
		a, _, err := unix.Accept(l)
		require.NoError(t, err)
		require.NoError(t, unix.Close(a))
	}
}

func send(t testing.TB, from int, to *unix.SockaddrInet4, text string) {
	t.Helper()
	require.NoError(t, unix.Sendto(from, []byte(text), 0, to))
}

func receive(t testing.TB, s int) string {
	t.Helper()
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(s, b, 0)
	require.NoError(t, err)
	return string(b[:n])
}

// Datagrams of a peer go to the socket that is connected to it, before a younger one that
// takes all others.
func TestConnectedFirst(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, option := range []semantics.Options{semantics.Addr, semantics.Port} {
		known, peer := open(t, udp(measure.Specific), 0, 0)
		stranger, _ := open(t, udp(measure.Specific), 0, 0)
		connected, at := open(t, udp(measure.Specific), option, 0)
		require.NoError(t, unix.Connect(connected, peer))
		younger, _ := open(t, udp(measure.Specific), option, at.Port)
		for range 10 {
			send(t, known, at, "peer")
			send(t, stranger, at, "stranger")
			assert.Equal(t, "peer", receive(t, connected))
			assert.Equal(t, "stranger", receive(t, younger))
		}
	}
}

// Every socket on a group's port gets each datagram, bound to the group or to 0.0.0.0,
// with either option. So does one that has not joined, unless it clears IP_MULTICAST_ALL.
// A broadcast reaches every socket on 0.0.0.0.
func TestMulticastCopies(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	group := measure.Multicast.Addr.As4()
	join := &unix.IPMreqn{Multiaddr: group, Ifindex: 1} // lo
	for _, option := range []semantics.Options{semantics.Addr, semantics.Port} {
		joined, at := open(t, udp(measure.Wildcard), option, 0)
		onGroup, to := open(t, udp(measure.Multicast), option, at.Port)
		stranger, _ := open(t, udp(measure.Wildcard), option, at.Port)
		deaf, _ := open(t, udp(measure.Wildcard), option, at.Port)
		require.NoError(t, unix.SetsockoptInt(deaf, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
		for _, s := range []int{joined, onGroup} {
			require.NoError(t, unix.SetsockoptIPMreqn(s, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, join))
		}
		sender, _ := open(t, udp(measure.Wildcard), 0, 0)
		require.NoError(t, unix.SetsockoptInt(sender, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		require.NoError(t, unix.SetsockoptIPMreqn(sender, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, join))
		send(t, sender, to, "group")
		send(t, sender, &unix.SockaddrInet4{Addr: [4]byte{127, 255, 255, 255}, Port: at.Port}, "broadcast")
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
		older, at := open(t, bound(measure.Specific), semantics.Addr, 0)
		younger, _ := open(t, bound(measure.Specific), semantics.Addr, at.Port)
		s := []int{older, younger}
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
	for _, b := range []semantics.Binding{bound(measure.Specific), udp(measure.Specific)} {
		first, at := open(t, b, 0, 0)
		b.Options = semantics.Port
		outcome, err := measure.Bind(b, uint16(at.Port))
		require.NoError(t, err)
		require.Equal(t, "b:bind:EADDRINUSE", outcome)
		require.NoError(t, unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		open(t, b, semantics.Port, at.Port)
	}
}
