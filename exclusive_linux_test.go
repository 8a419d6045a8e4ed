package reuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/testproc"
)

// says answers every connection, or every datagram, with a name.
func says(s io.Closer, name string) {
	if p, ok := s.(net.PacketConn); ok {
		b := make([]byte, 1)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name), from)
		}
	}
	l := s.(net.Listener)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(c, name)
		c.Close()
	}
}

// stranger is a child that becomes the user that it is told, and listens. Each line
// of input is a network, an address, options such as "addr,port" or "-", a device or
// "-" and a CPU or -1. Option "late" is SO_REUSEPORT after the bind, and "connect=ADDRESS"
// connects a UDP socket. It answers "ok" or the error, and keeps what it bound until it
// is told "close".
func stranger(args []string, in *bufio.Scanner, out io.Writer) error {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if uid != os.Getuid() {
		if err := measure.Become(uid); err != nil {
			return err
		}
	}
	var open []io.Closer
	for in.Scan() {
		f := strings.Fields(in.Text())
		if f[0] == "close" {
			for _, s := range open {
				if err := s.Close(); err != nil {
					return err
				}
			}
			open = nil
			fmt.Fprintln(out, "ok")
			continue
		}
		cpu, err := strconv.Atoi(f[4])
		if err != nil {
			return err
		}
		s, err := rival(context.Background(), f[0], f[1], f[2], f[3], cpu)
		if err != nil {
			fmt.Fprintln(out, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		go says(s, "stranger")
		open = append(open, s)
		fmt.Fprintln(out, "ok")
	}
	return in.Err()
}

// rival listens without the package under test, with options, and with what the
// kernel's look-up likes: the device and the CPU that a connection comes from.
func rival(ctx context.Context, network, address, options, device string, cpu int) (io.Closer, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) (err error) {
		cerr := rc.Control(func(fd uintptr) {
			for o, name := range map[string]int{"addr": unix.SO_REUSEADDR, "port": unix.SO_REUSEPORT} {
				value := 0
				if strings.Contains(options, o) {
					value = 1
				}
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, name, value))
			}
			if device != "-" {
				err = errors.Join(err, unix.BindToDevice(int(fd), device))
			}
			if cpu >= 0 {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_INCOMING_CPU, cpu))
			}
		})
		return errors.Join(cerr, err)
	}}
	if !strings.HasPrefix(network, "udp") {
		return lc.Listen(ctx, network, address)
	}
	p, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	rc, err := p.(syscall.Conn).SyscallConn()
	if err != nil {
		return p, err
	}
	cerr := rc.Control(func(fd uintptr) {
		if strings.Contains(options, "late") {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		if _, to, ok := strings.Cut(options, "connect="); ok {
			peer := netip.MustParseAddrPort(to)
			var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: peer.Addr().As16(), Port: int(peer.Port())}
			if peer.Addr().Is4() {
				sa = &unix.SockaddrInet4{Addr: peer.Addr().As4(), Port: int(peer.Port())}
			}
			err = errors.Join(err, unix.Connect(int(fd), sa))
		}
	})
	return p, errors.Join(cerr, err)
}

// answers connects some times, from one CPU, and returns the names that it got.
func answers(t *testing.T, network, address string, cpu int) []string {
	t.Helper()
	var was, only unix.CPUSet
	only.Set(cpu)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	require.NoError(t, unix.SchedGetaffinity(0, &was))
	require.NoError(t, unix.SchedSetaffinity(0, &only))
	defer func() { require.NoError(t, unix.SchedSetaffinity(0, &was)) }()
	var names []string
	for range 20 {
		c, err := net.Dial(network, address)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		if network[0] == 'u' {
			_, err = c.Write([]byte{0})
			require.NoError(t, err)
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		require.NoError(t, err)
		discard(c)
		if n := strings.TrimSpace(string(b[:n])); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// On Linux a socket with SO_REUSEPORT that is admitted beside another one of its user
// is not compared with the rest: so a user who binds several times gets beside a socket
// that does not share (semantics' linuxDetour says how). Exclusive is On where that
// takes nothing from the socket, and unsupported where it does, which Prefer shows.
func TestExclusiveDetour(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	if testproc.OnGVisor() {
		t.Skip("gVisor compares with every socket: TestInForce tries the same binds")
	}
	const owner, strange = "owner", "stranger"
	var cpus unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	cpu := 0
	for !cpus.IsSet(cpu) {
		cpu++
	}
	// Among more than ten sockets on a port, the kernel asks those on the same address.
	steps6 := []string{"udp4 ", "udp :: port,connect=[::1]:9", "udp6 ::1"}
	for i := range 12 {
		steps6 = append([]string{fmt.Sprintf("udp4 127.0.0.%d", 2+i)}, steps6...)
	}
	for _, user := range users(t) {
		other := testproc.Start(t, "stranger", strconv.Itoa(user))
		for _, tt := range []struct {
			network, address string   // of the owner
			steps            []string // of the stranger: network, host, options if not "port"
			succeed          int      // how many, before one is refused
			// Who gets what is sent while the owner lives: if the stranger sets
			// nothing else, if it binds to the device, and to the CPU, too.
			plain, device, cpu string
		}{
			{"tcp4", "127.0.0.1:0", []string{"tcp6 ", "tcp "}, 2, owner, owner, owner},
			{"tcp6", "[::1]:0", []string{"tcp4 ", "tcp "}, 2, owner, owner, owner},
			{"tcp4", "0.0.0.0:0", []string{"tcp6 ", "tcp "}, 2, owner, owner, strange},
			{"tcp6", "[::]:0", []string{"tcp4 ", "tcp "}, 2, owner, strange, strange},
			{"tcp", ":0", []string{"tcp4 ", "tcp "}, 0, owner, owner, owner},
			{"tcp", ":0", []string{"tcp6 ", "tcp "}, 0, owner, owner, owner},
			{"udp4", "127.0.0.1:0", []string{"udp4 127.0.0.2", "udp4 ", "udp4 127.0.0.1"}, 3, strange, strange, strange},
			{"udp6", "[::1]:0", steps6, len(steps6), owner, strange, strange},
			{"udp4", "0.0.0.0:0", []string{"udp6 :: late", "udp "}, 2, owner, strange, strange},
			{"udp6", "[::]:0", []string{"udp4 ", "udp "}, 2, owner, strange, strange},
			{"udp", ":0", []string{"udp4 ", "udp "}, 0, owner, owner, owner},
			{"udp", ":0", []string{"udp6 ", "udp "}, 0, owner, owner, owner},
		} {
			for _, with := range []struct{ socket, gets string }{
				{"- -1", tt.plain}, {"lo -1", tt.device}, {fmt.Sprintf("lo %d", cpu), tt.cpu},
			} {
				name := fmt.Sprintf("user %d beside %s %s with %s", user, tt.network, tt.address, with.socket)
				exclusive := reuse.Config{Exclusive: reuse.On}
				if tt.plain == strange || tt.device == strange || tt.cpu == strange {
					err := bind(t.Context(), exclusive, tt.network, tt.address)
					require.ErrorIs(t, err, errors.ErrUnsupported, name)
					assert.ErrorContains(t, err, `":port"`, name)
					exclusive.Exclusive = reuse.Prefer
				}
				s, at, err := open(t.Context(), exclusive, tt.network, tt.address)
				require.NoError(t, err, name)
				go says(s, owner)
				step := func(i int) string {
					f := append(strings.Split(tt.steps[i], " "), "port")
					device := with.socket
					if i == 0 {
						device = "- -1"
					}
					return other.Ask(f[0], net.JoinHostPort(f[1], portOf(at)), f[2], device)
				}
				last := len(tt.steps) - 1
				require.NotEqual(t, "ok", step(last), "%s: the last step at once", name)
				for i := range tt.steps {
					answer := step(i)
					assert.Equal(t, i < tt.succeed, answer == "ok", "%s: step %d: %s", name, i, answer)
				}
				target := net.JoinHostPort("127.0.0.1", portOf(at))
				if tt.network[3:] == "6" {
					target = net.JoinHostPort("::1", portOf(at))
				}
				assert.Equal(t, []string{with.gets}, answers(t, tt.network, target, cpu), name)

				// The owner closes, and starts again.
				require.NoError(t, s.Close())
				err = bind(t.Context(), exclusive, tt.network, at.String())
				if tt.succeed > last {
					assert.ErrorIs(t, err, unix.EADDRINUSE, name)
					assert.Equal(t, []string{strange}, answers(t, tt.network, target, cpu), name)
				} else if tt.succeed == 0 {
					assert.NoError(t, err, name)
				}
				require.Equal(t, "ok", other.Ask("close"))
			}
		}
	}
}

// A connected UDP socket is not exclusive: a socket that gets beside it may connect to
// the same peer, and has what that sends then.
func TestExclusiveDialDetour(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	if testproc.OnGVisor() {
		t.Skip("gVisor compares with every socket")
	}
	for _, user := range users(t) {
		other := testproc.Start(t, "stranger", strconv.Itoa(user))
		for network, steps := range map[string][]string{
			"udp4": {"udp4 127.0.0.2", "udp4 ", "udp4 127.0.0.1"},
			"udp6": {"udp4 ", "udp "},
		} {
			remote, err := net.ListenPacket(network, loopback(network))
			require.NoError(t, err)
			require.NoError(t, remote.SetDeadline(time.Now().Add(10*time.Second)))
			for _, laddr := range []string{"", loopback(network)} {
				_, err := reuse.Config{Exclusive: reuse.On}.Dial(t.Context(), network, laddr, remote.LocalAddr().String())
				require.ErrorIs(t, err, errors.ErrUnsupported)
				conn, err := reuse.Config{Exclusive: reuse.Prefer}.Dial(t.Context(), network, laddr, remote.LocalAddr().String())
				require.NoError(t, err)
				for i, step := range steps {
					options := "port"
					if i == len(steps)-1 {
						options += ",connect=" + remote.LocalAddr().String()
					}
					step, host, _ := strings.Cut(step, " ")
					require.Equal(t, "ok", other.Ask(step, net.JoinHostPort(host, portOf(conn.LocalAddr())), options, "-", "-1"))
				}
				for range 20 {
					_, err := remote.WriteTo([]byte{0}, conn.LocalAddr())
					require.NoError(t, err)
					b := make([]byte, 100)
					n, _, err := remote.ReadFrom(b)
					require.NoError(t, err)
					assert.Equal(t, "stranger", string(b[:n]))
				}
				require.NoError(t, conn.Close())
				require.Equal(t, "ok", other.Ask("close"))
			}
			require.NoError(t, remote.Close())
		}
	}
}

// users are this one and, if this process may become it, another.
func users(t testing.TB) []int {
	const nobody = 65534
	if os.Getuid() == 0 && mapped(t, nobody) {
		return []int{0, nobody}
	}
	return []int{os.Getuid()}
}

// mapped says that this process may become another user: in a user namespace that
// has root alone it may not.
func mapped(t testing.TB, user int) bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var first, outside, n int
		_, err := fmt.Sscan(line, &first, &outside, &n)
		require.NoError(t, err)
		if first <= user && user-first < n {
			return true
		}
	}
	return false
}

// On a port that only root may bind, no other user gets beside any socket.
func TestExclusivePrivileged(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	const start = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	if _, err := os.Stat(start); err != nil {
		t.Skipf("this kernel has no such ports: %v", err)
	}
	exclusive := reuse.Config{Exclusive: reuse.On}
	for _, at := range [][2]string{{"tcp4", "0.0.0.0:"}, {"tcp6", "[::]:"}, {"udp4", "127.0.0.1:"}, {"udp6", "[::]:"}} {
		require.ErrorIs(t, bind(t.Context(), exclusive, at[0], at[1]+"1024"), errors.ErrUnsupported)
		require.ErrorIs(t, bind(t.Context(), exclusive, at[0], at[1]+"0"), errors.ErrUnsupported)
		s, local, err := open(t.Context(), exclusive, at[0], at[1]+"1023")
		require.NoError(t, err, at)
		for _, user := range users(t)[1:] {
			other := testproc.Start(t, "stranger", strconv.Itoa(user))
			for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
				answer := other.Ask(network, net.JoinHostPort("", portOf(local)), "port", "-", "-1")
				assert.Contains(t, answer, unix.EACCES.Error(), "%v beside %v", network, at)
			}
		}
		require.NoError(t, s.Close())
	}
	err := os.WriteFile(start, []byte("0"), 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skipf("the ports cannot be given to all: %v", err)
	}
	require.NoError(t, err)
	require.ErrorIs(t, bind(t.Context(), exclusive, "tcp4", "0.0.0.0:80"), errors.ErrUnsupported)
}

// Sockets that are bound to different devices do not conflict, and an IPv6-only :: is
// not exclusive, so the caller's own Control must not make that of a socket.
func TestExclusiveControl(t *testing.T) {
	t.Parallel()
	device := func(fd int) error { return unix.BindToDevice(fd, "lo") }
	v6only := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) }
	for _, tt := range []struct {
		network string
		do      func(fd int) error
		want    error
	}{
		{"tcp4", device, reuse.ErrConflict},
		{"tcp", device, reuse.ErrConflict},
		{"tcp", v6only, errors.ErrUnsupported},
		{"udp", device, reuse.ErrConflict},
		{"udp", v6only, errors.ErrUnsupported},
	} {
		needNetwork(t, tt.network)
		c := reuse.Config{Exclusive: reuse.On}
		control := func(_, _ string, rc syscall.RawConn) (err error) {
			cerr := rc.Control(func(fd uintptr) { err = tt.do(int(fd)) })
			return errors.Join(cerr, err)
		}
		after, err := c.ListenConfig(net.ListenConfig{Control: control})
		require.NoError(t, err)
		before := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
			if err := control(network, address, rc); err != nil {
				return err
			}
			return c.Control(network, address, rc)
		}}
		for name, lc := range map[string]net.ListenConfig{"after": after, "before": before} {
			if tt.network == "udp" {
				_, err = lc.ListenPacket(t.Context(), tt.network, ":0")
			} else {
				_, err = lc.Listen(t.Context(), tt.network, loopback(tt.network))
			}
			if errors.Is(err, unix.EPERM) {
				t.Skipf("this user may not bind to a device: %v", err)
			}
			var oe *reuse.OptionError
			require.ErrorAs(t, err, &oe, name)
			assert.Equal(t, reuse.Exclusive, oe.Option)
			require.ErrorIs(t, err, tt.want, name)
		}
		c.Exclusive = reuse.Prefer
		l, err := before.Listen(t.Context(), "tcp", ":0")
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}
