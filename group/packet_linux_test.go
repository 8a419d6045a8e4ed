package group_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/sockdiag"
	"example.com/reuse/internal/testproc"
)

// packetChildren are what children of the tests of packet groups do.
var packetChildren = map[string]testproc.Child{
	"packet echo":  packetEcho,
	"packet limit": packetLimit,
}

// echo sends back what it reads, until reads end.
func echo(c net.PacketConn) error {
	b := make([]byte, 1<<10)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			return err
		}
	}
}

// packetEcho is a child that echoes: its arguments are a network, an address and
// a number of sockets. It answers its address; "take over" and "drain".
func packetEcho(args []string, in *bufio.Scanner, out io.Writer) error {
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	g, err := group.Config{Size: size}.ListenPacket(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	done := make(chan error)
	for _, c := range g.Conns() {
		go func() { done <- echo(c) }()
	}
	fmt.Fprintln(out, g.LocalAddr())
	for in.Scan() {
		switch in.Text() {
		case "take over":
			err = g.TakeOver(ctx, 0)
		case "drain":
			err = g.Drain(ctx)
			for range g.Conns() {
				if e := <-done; !errors.Is(e, net.ErrClosed) {
					err = errors.Join(err, e)
				}
			}
			err = errors.Join(err, g.Close())
		}
		fmt.Fprintf(out, "%v\n", err)
	}
	return in.Err()
}

// askPacket sends a datagram from a new socket and waits for the answer. The
// socket's own address is that of the server: so must the answer's source be.
func askPacket(at netip.AddrPort, number uint64) error {
	to := net.UDPAddrFromAddrPort(at)
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: to.IP}, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	b := binary.NativeEndian.AppendUint64(nil, number)
	if _, err := c.Write(b); err != nil {
		return err
	}
	n, err := c.Read(b)
	if err == nil && (n != len(b) || binary.NativeEndian.Uint64(b) != number) {
		return errors.New("another answer")
	}
	return err
}

// loadPackets asks from n clients until stop is called, which returns how many were
// answered and the errors of those that were not. The clients take turns with the
// addresses.
func loadPackets(n int, at ...netip.AddrPort) (stop func() (int, []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	var answered, number atomic.Int64
	var mu sync.Mutex
	var lost []error
	for i := range n {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := askPacket(at[i%len(at)], uint64(number.Add(1))); err != nil {
					mu.Lock()
					lost = append(lost, err)
					mu.Unlock()
					continue
				}
				answered.Add(1)
			}
		})
	}
	return func() (int, []error) {
		cancel()
		clients.Wait()
		return int(answered.Load()), lost
	}
}

func on(t testing.TB, address string, hosts ...string) (list []netip.AddrPort) {
	at, err := netip.ParseAddrPort(address)
	require.NoError(t, err)
	for _, h := range hosts {
		list = append(list, netip.AddrPortFrom(netip.MustParseAddr(h), at.Port()))
	}
	return list
}

// An echo service is restarted under load, each time as a new process, and every
// client gets its answer.
func TestPacketHandOver(t *testing.T) {
	const restarts = 20
	for _, tt := range []struct {
		network, address string
		hosts            []string
		sizes            []int
	}{
		{"udp4", "127.0.0.1:0", []string{"127.0.0.1"}, []int{1}},
		{"udp4", "0.0.0.0:0", []string{"127.0.0.1"}, []int{4}},
		{"udp6", "[::1]:0", []string{"::1"}, []int{2}},
		{"udp", ":0", []string{"127.0.0.1", "::1"}, []int{2, 4, 1}},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			start := func(i int, address string) (*testproc.Process, string) {
				p := testproc.Start(t, "packet echo", tt.network, address, strconv.Itoa(tt.sizes[i%len(tt.sizes)]))
				return p, p.Receive()
			}
			server, address := start(0, tt.address)
			stop := loadPackets(16, on(t, address, tt.hosts...)...)
			for i := range restarts {
				next, _ := start(i+1, address)
				require.Equal(t, "<nil>", next.Ask("take over"))
				require.Equal(t, "<nil>", server.Ask("drain"))
				server = next
			}
			answered, lost := stop()
			t.Log(answered, "answered")
			assert.NotZero(t, answered)
			if testing.Short() && tt.address == ":0" && len(lost) == 1 && errors.Is(lost[0], unix.ECONNREFUSED) {
				t.Log("one was refused: see hide; on an emulated processor the instant is long")
				return
			}
			assert.Empty(t, lost)
		})
	}
}

// Answers written after Drain have the source address that they had before, with
// every way to write. A client that is connected gets no others.
func TestPacketAnswersAfterDrain(t *testing.T) {
	if !testproc.Netns(t) { // for addresses that are not the loopback's
		return
	}
	addAddress4(t, "192.0.2.1")
	addAddress6(t, "fd00::1")
	for _, tt := range []struct {
		network, address string
		hosts            []string
	}{
		{"udp4", "127.0.0.1:0", []string{"127.0.0.1"}},
		{"udp4", "0.0.0.0:0", []string{"127.0.0.1", "192.0.2.1"}},
		{"udp6", "[::1]:0", []string{"::1"}},
		{"udp6", "[::]:0", []string{"::1", "fd00::1"}},
		{"udp", ":0", []string{"127.0.0.1", "192.0.2.1", "::1", "fd00::1"}},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			answersAfterDrain(t, tt.network, tt.address, tt.hosts)
		})
	}
	t.Run("no IPv6", func(t *testing.T) { // as in many containers
		disableIPv6(t)
		answersAfterDrain(t, "udp", "[::]:0", []string{"127.0.0.1", "192.0.2.1"})
	})
}

func answersAfterDrain(t *testing.T, network, address string, hosts []string) {
	g := packetGroup(t, 1, network, address)
	server := g.Conns()[0].(packetConn)
	var clients []*net.UDPConn
	var from []*net.UDPAddr
	for i, at := range on(t, g.LocalAddr().String(), hosts...) {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: at.Addr().AsSlice()}, net.UDPAddrFromAddrPort(at))
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = c.Write([]byte{byte(i)})
		require.NoError(t, err)
		_, addr, err := server.ReadFromUDP(make([]byte, 1))
		require.NoError(t, err)
		clients, from = append(clients, c), append(from, addr)
	}
	successor := packetGroup(t, 1, network, g.LocalAddr().String())
	require.NoError(t, successor.TakeOver(t.Context(), 0))
	require.NoError(t, g.Drain(t.Context()))
	for i, c := range clients {
		to := from[i]
		for name, write := range map[string]func(b []byte) error{
			"WriteTo":            func(b []byte) error { _, err := server.WriteTo(b, to); return err },
			"WriteToUDP":         func(b []byte) error { _, err := server.WriteToUDP(b, to); return err },
			"WriteToUDPAddrPort": func(b []byte) error { _, err := server.WriteToUDPAddrPort(b, to.AddrPort()); return err },
			"WriteMsgUDP": func(b []byte) error {
				n, oobn, err := server.WriteMsgUDP(b, nil, to)
				assert.Equal(t, 1, n)
				assert.Zero(t, oobn)
				return err
			},
			"WriteMsgUDPAddrPort": func(b []byte) error { _, _, err := server.WriteMsgUDPAddrPort(b, nil, to.AddrPort()); return err },
			"WriteMsgUDP, source": func(b []byte) error {
				n, oobn, err := server.WriteMsgUDP(b, pktinfo(c.RemoteAddr()), to)
				assert.Equal(t, 1, n)
				assert.Len(t, pktinfo(c.RemoteAddr()), oobn)
				return err
			},
		} {
			require.NoError(t, write([]byte{byte(i)}), "%s to %v", name, to)
			b := make([]byte, 2)
			n, err := c.Read(b)
			require.NoError(t, err, "%s to %v", name, to)
			assert.Equal(t, []byte{byte(i)}, b[:n])
		}
	}
	for i, c := range clients { // a source that the caller names
		own := c.LocalAddr().(*net.UDPAddr)
		for j, other := range clients {
			source := other.LocalAddr().(*net.UDPAddr)
			if i == j || (own.IP.To4() == nil) != (source.IP.To4() == nil) {
				continue
			}
			peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: own.IP})
			require.NoError(t, err)
			defer peer.Close()
			require.NoError(t, peer.SetDeadline(time.Now().Add(10*time.Second)))
			_, _, err = server.WriteMsgUDP([]byte{8}, pktinfo(source), peer.LocalAddr().(*net.UDPAddr))
			require.NoError(t, err)
			_, addr, err := peer.ReadFromUDPAddrPort(make([]byte, 1))
			require.NoError(t, err)
			assert.Equal(t, source.AddrPort().Addr(), addr.Addr())
		}
	}
	for _, c := range clients { // strangers to the drained socket now
		_, err := c.Write([]byte{9})
		require.NoError(t, err)
		_, _, err = successor.Conns()[0].ReadFrom(make([]byte, 1))
		require.NoError(t, err)
	}
}

// packetConn is what servers of DNS and QUIC use of a *net.UDPConn.
type packetConn interface {
	net.PacketConn
	syscall.Conn
	SetReadBuffer(int) error
	ReadFromUDP([]byte) (int, *net.UDPAddr, error)
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	WriteToUDP([]byte, *net.UDPAddr) (int, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
}

// pktinfo names a source.
func pktinfo(source net.Addr) []byte {
	ip := source.(*net.UDPAddr).AddrPort().Addr().Unmap()
	if ip.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: ip.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: ip.As16()})
}

// addAddress4 gives the loopback interface one more address.
func addAddress4(t *testing.T, address string) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo:1")
	require.NoError(t, err)
	ip := netip.MustParseAddr(address).As4()
	require.NoError(t, req.SetInet4Addr(ip[:]))
	require.NoError(t, unix.IoctlIfreq(s, unix.SIOCSIFADDR, req))
}

// addAddress6 does so for IPv6.
func addAddress6(t *testing.T, address string) {
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	lo, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	req := struct { // struct in6_ifreq
		addr      [16]byte
		prefixLen uint32
		index     int32
	}{netip.MustParseAddr(address).As16(), 128, int32(lo.Index)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&req)))
	require.Zero(t, errno)
}

// disableIPv6 takes away the IPv6 addresses, but not the sockets.
func disableIPv6(t *testing.T) {
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0))
}

// What is queued when Drain begins is read before reads end.
func TestPacketDrainReadsQueue(t *testing.T) {
	t.Parallel()
	g := packetGroup(t, 1, "udp4", "127.0.0.1:0")
	const n = 50
	send(t, g.LocalAddr(), n)
	packetGroup(t, 1, "udp4", g.LocalAddr().String())
	drained := make(chan error, 1)
	go func() { drained <- g.Drain(t.Context()) }()
	read := 0
	for {
		_, _, err := g.Conns()[0].ReadFrom(make([]byte, 8))
		if errors.Is(err, net.ErrClosed) {
			break
		}
		require.NoError(t, err)
		read++
	}
	require.NoError(t, <-drained)
	assert.Equal(t, n, read)
}

// send sends n datagrams, the first of them empty, and waits until they are queued on
// the only socket of the address.
func send(t *testing.T, to net.Addr, n int) {
	c, err := net.Dial("udp", to.String())
	require.NoError(t, err)
	defer c.Close()
	at := to.(*net.UDPAddr).AddrPort()
	family := uint8(unix.AF_INET6)
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	queued := func() uint32 {
		list, err := sockdiag.UDP(family, at.Port(), sockdiag.Unconnected)
		require.NoError(t, err)
		i := slices.IndexFunc(list, func(s sockdiag.Socket) bool { return s.Local == at })
		require.GreaterOrEqual(t, i, 0)
		return list[i].Queue
	}
	for i := range n {
		before := queued()
		_, err := c.Write(make([]byte, min(i, 1)))
		require.NoError(t, err)
		for queued() == before {
			runtime.Gosched()
		}
	}
}

// A reader that does not read is waited for until ctx ends. The error tells what it
// has left.
func TestPacketDrainAbandons(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7} { // 1: the empty one alone
		g := packetGroup(t, 1, "udp6", "[::1]:0")
		send(t, g.LocalAddr(), n)
		packetGroup(t, 1, "udp6", g.LocalAddr().String())
		done, cancel := context.WithCancel(t.Context())
		cancel()
		err := g.Drain(done)
		require.ErrorIs(t, err, context.Canceled)
		if n == 0 {
			assert.NotContains(t, err.Error(), "abandoned")
			continue
		}
		assert.ErrorContains(t, err, fmt.Sprintf(" %d datagrams abandoned", n))
		assert.ErrorContains(t, err, "not read")
	}
	// With time, it is not given up: not for the empty one, either.
	for _, n := range []int{1, 3} {
		g := packetGroup(t, 1, "udp4", "127.0.0.1:0")
		send(t, g.LocalAddr(), n)
		packetGroup(t, 1, "udp4", g.LocalAddr().String())
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := g.Drain(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, fmt.Sprintf(" %d datagrams abandoned", n))
	}
}

// Nobody has taken over: there is nobody, a socket on another address or of another
// family, or one that is connected.
func TestPacketDrainAlone(t *testing.T) {
	t.Parallel()
	alone := func(t *testing.T, g *group.PacketGroup) {
		t.Helper()
		assert.ErrorContains(t, g.Drain(t.Context()), "what came meanwhile may be lost: no other socket of this user")
	}
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		alone(t, packetGroup(t, 4, "udp4", "127.0.0.1:0"))
		alone(t, packetGroup(t, 1, "udp6", "[::]:0"))
	})
	t.Run("others", func(t *testing.T) {
		t.Parallel()
		g := packetGroup(t, 1, "udp4", "127.0.0.1:0")
		_, port, err := net.SplitHostPort(g.LocalAddr().String())
		require.NoError(t, err)
		packetGroup(t, 1, "udp4", "127.0.0.2:"+port)
		packetGroup(t, 1, "udp4", "0.0.0.0:"+port)
		packetGroup(t, 1, "udp6", "[::1]:"+port)
		alone(t, g)
	})
	t.Run("dual", func(t *testing.T) {
		t.Parallel()
		g := packetGroup(t, 1, "udp", ":0")
		_, port, err := net.SplitHostPort(g.LocalAddr().String())
		require.NoError(t, err)
		packetGroup(t, 1, "udp6", "[::]:"+port)
		alone(t, g)
	})
	t.Run("connected", func(t *testing.T) {
		t.Parallel()
		g := packetGroup(t, 1, "udp4", "127.0.0.1:0")
		d := net.Dialer{LocalAddr: g.LocalAddr()}
		d, err := reuse.Config{Port: reuse.On}.Dialer(d)
		require.NoError(t, err)
		c, err := d.DialContext(t.Context(), "udp4", "127.0.0.1:9")
		require.NoError(t, err)
		defer c.Close()
		alone(t, g)
	})
	t.Run("both go", func(t *testing.T) {
		t.Parallel()
		for range 20 {
			a := packetGroup(t, 1, "udp4", "127.0.0.1:0")
			b := packetGroup(t, 1, "udp4", a.LocalAddr().String())
			errs := make(chan error)
			for _, g := range []*group.PacketGroup{a, b} {
				go func() { errs <- g.Drain(t.Context()) }()
			}
			require.Error(t, errors.Join(<-errs, <-errs))
		}
	})
}

// A socket that cannot be hidden is drained as it is, and Drain says so.
func TestPacketDrainInSight(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	g := packetGroup(t, 2, "udp6", "[::]:0")
	disableIPv6(t) // there is no address left to connect to
	err := g.Drain(t.Context())
	var refused *os.SyscallError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "connect", refused.Syscall)
	require.ErrorContains(t, err, "no other socket of this user")
	_, _, err = g.Conns()[1].ReadFrom(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}

// Close ends a Drain that waits for a reader.
func TestPacketCloseEndsDrain(t *testing.T) {
	t.Parallel()
	g := packetGroup(t, 1, "udp4", "127.0.0.1:0")
	send(t, g.LocalAddr(), 2)
	packetGroup(t, 1, "udp4", g.LocalAddr().String())
	drained := make(chan error)
	go func() { drained <- g.Drain(t.Context()) }()
	// Drain has begun when TakeOver fails.
	for !errors.Is(g.TakeOver(t.Context(), 0), net.ErrClosed) {
		runtime.Gosched()
	}
	require.NoError(t, g.Close())
	require.ErrorIs(t, <-drained, net.ErrClosed)
}

func TestPacketTakeOver(t *testing.T) {
	t.Parallel()
	a := packetGroup(t, 2, "udp6", "[::1]:0")
	b := packetGroup(t, 1, "udp6", a.LocalAddr().String())
	require.NoError(t, a.TakeOver(t.Context(), 0))
	require.NoError(t, a.TakeOver(t.Context(), 3))
	require.NoError(t, b.TakeOver(t.Context(), 3))
	require.ErrorIs(t, b.TakeOver(t.Context(), 4), os.ErrInvalid)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.TakeOver(done, 0), context.Canceled)
	require.NoError(t, a.Drain(t.Context()))
	require.ErrorIs(t, b.TakeOver(t.Context(), 2), os.ErrInvalid) // a's receive no more
	require.NoError(t, b.TakeOver(t.Context(), 1))
	c := packetGroup(t, 2, "udp6", a.LocalAddr().String())
	rc, err := c.Conns()[1].(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) { // to one client, and away from all others
		err = unix.Connect(int(fd), &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16(), Port: 9})
	}))
	require.NoError(t, err)
	require.ErrorContains(t, c.TakeOver(t.Context(), 0), "does not show")

	require.NoError(t, b.Conns()[0].Close())
	require.ErrorIs(t, b.TakeOver(t.Context(), 0), net.ErrClosed)
	require.ErrorIs(t, b.Drain(t.Context()), net.ErrClosed)
}

// A member that a program never chose can be closed under load without a loss,
// though the kernel finds it for an instant when it is no longer in the group.
func TestPacketCloseUnderLoad(t *testing.T) {
	const closes = 3000
	for _, tt := range []struct{ network, address, host string }{
		{"udp4", "127.0.0.1:0", "127.0.0.1"},
		{"udp6", "[::1]:0", "::1"},
	} {
		t.Run(tt.network, func(t *testing.T) {
			g := packetGroup(t, 1, tt.network, tt.address)
			rc, err := g.Conns()[0].(syscall.Conn).SyscallConn()
			require.NoError(t, err)
			packetGroup(t, 1, tt.network, g.LocalAddr().String()) // makes them a group
			program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
			require.NoError(t, rc.Control(func(fd uintptr) {
				err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
					&unix.SockFprog{Len: 1, Filter: &program[0]})
			}))
			require.NoError(t, err)
			go func() { _ = echo(g.Conns()[0]) }() // until it is closed
			stop := loadPackets(4, on(t, g.LocalAddr().String(), tt.host)...)
			for range closes {
				m, err := group.Config{Size: 1}.ListenPacket(t.Context(), tt.network, g.LocalAddr().String())
				require.NoError(t, err)
				require.NoError(t, m.Close())
			}
			answered, lost := stop()
			t.Log(answered, "answered")
			assert.NotZero(t, answered)
			assert.Empty(t, lost)
		})
	}
}

// packetLimit is a child that may have few descriptors only. Its answer tells what
// a group that needs more has left behind.
func packetLimit(_ []string, in *bufio.Scanner, out io.Writer) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		return err
	}
	first, err := group.Config{Size: 1}.ListenPacket(context.Background(), "udp4", "127.0.0.1:0") // and the poller
	if err != nil {
		return err
	}
	for in.Scan() {
		before, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		_, err = group.Config{Size: 100}.ListenPacket(context.Background(), "udp4", first.LocalAddr().String())
		if !errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("100 sockets with 64 descriptors: %w", err)
		}
		after, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		fmt.Fprintln(out, len(after)-len(before))
	}
	return in.Err()
}

// All sockets or none.
func TestPacketAllOrNone(t *testing.T) {
	t.Parallel()
	p := testproc.Start(t, "packet limit")
	for range 3 {
		assert.Equal(t, "0", p.Ask("open"))
	}
}

// Another user's socket shares no group's address, and if SO_REUSEADDR lets it, it is
// no successor.
func TestPacketOtherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs another user")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	asNobody := func(c reuse.Config, address string) net.PacketConn {
		require.NoError(t, unix.Setfsuid(65534)) // whose a socket is; of this thread alone
		p, err := c.ListenPacket(t.Context(), "udp4", address)
		require.NoError(t, unix.Setfsuid(0))
		require.NoError(t, err)
		return p
	}
	p := asNobody(reuse.Config{Port: reuse.On}, "127.0.0.1:0")
	defer p.Close()
	_, err := group.Config{}.ListenPacket(t.Context(), "udp4", p.LocalAddr().String())
	require.ErrorIs(t, err, syscall.EADDRINUSE)

	g, err := group.Config{Size: 1, Socket: reuse.Config{Addr: reuse.On}}.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer g.Close()
	q := asNobody(reuse.Config{Addr: reuse.On}, g.LocalAddr().String())
	defer q.Close()
	require.ErrorContains(t, g.Drain(t.Context()), "no other socket of this user")
}

// Nothing is left of groups that were drained and closed.
func TestPacketLeak(t *testing.T) { // not parallel: it counts descriptors
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	_ = packetGroup(t, 1, "udp", ":0") // the poller
	before, goroutines := open(), runtime.NumGoroutine()
	for range 10 {
		a, err := group.Config{Size: 4}.ListenPacket(t.Context(), "udp", ":0")
		require.NoError(t, err)
		b, err := group.Config{Size: 4}.ListenPacket(t.Context(), "udp", a.LocalAddr().String())
		require.NoError(t, err)
		require.NoError(t, b.TakeOver(t.Context(), 0))
		require.NoError(t, a.Drain(t.Context()))
		for _, c := range a.Conns() {
			_, err := c.WriteTo([]byte{1}, net.UDPAddrFromAddrPort(on(t, a.LocalAddr().String(), "::1")[0]))
			require.NoError(t, err)
		}
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	}
	assert.Equal(t, before, open())
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
}
