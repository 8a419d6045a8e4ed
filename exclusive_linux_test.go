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
	"example.com/reuse/internal/sockopt"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.Main(m, map[string]testproc.Child{"stranger": stranger}) }

// stranger is a child that becomes the user of its argument. Each line of input is a
// network, an address and options. It listens, and answers "ok" or the error. It keeps what
// it bound until it reads "close".
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
				s.Close()
			}
			open = nil
			fmt.Fprintln(out, "ok")
			continue
		}
		s, err := rival(f[0], f[1], strings.Split(f[2], ","))
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

// rival listens without the package under test. Options are "port" for SO_REUSEPORT, the
// device and the CPU that the kernel's look-up prefers, as "device=lo" and "cpu=0", and for
// an IPv6 UDP socket a peer to connect to, as "connect=[::1]:9". With "afterbind" the socket
// gets SO_REUSEPORT after the bind.
func rival(network, address string, options []string) (io.Closer, error) {
	each := func(rc syscall.RawConn, do func(fd int, name, value string) error) error {
		return sockopt.Control(rc, func(fd uintptr) (err error) {
			for _, option := range options {
				name, value, _ := strings.Cut(option, "=")
				err = errors.Join(err, do(int(fd), name, value))
			}
			return err
		})
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return each(rc, func(fd int, name, value string) error {
			switch name {
			case "port":
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			case "device":
				return unix.BindToDevice(fd, value)
			case "cpu":
				cpu, err := strconv.Atoi(value)
				return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU, cpu))
			}
			return nil
		})
	}}
	if !strings.HasPrefix(network, "udp") {
		return lc.Listen(context.Background(), network, address)
	}
	p, err := lc.ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	rc, err := p.(syscall.Conn).SyscallConn()
	if err != nil {
		return p, err
	}
	return p, each(rc, func(fd int, name, value string) error {
		switch name {
		case "afterbind":
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		case "connect":
			peer := netip.MustParseAddrPort(value)
			return unix.Connect(fd, &unix.SockaddrInet6{Addr: peer.Addr().As16(), Port: int(peer.Port())})
		}
		return nil
	})
}

// answers connects some times and returns the names that it got.
func answers(t *testing.T, network, address string) (names []string) {
	t.Helper()
	for range 20 {
		if name := who(t, network, address); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// pin makes a test run on one CPU, and returns its number.
func pin(t *testing.T) (cpu int) {
	var cpus, only unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	for !cpus.IsSet(cpu) {
		cpu++
	}
	only.Set(cpu)
	runtime.LockOSThread() // and no unlock: the thread ends with the test
	require.NoError(t, unix.SchedSetaffinity(0, &only))
	return cpu
}

// strangers are a process of this user and, if this process may become another user, one
// of that. In a user namespace that has root alone it may not.
func strangers(t testing.TB) []*testproc.Process {
	list := []*testproc.Process{testproc.Start(t, "stranger", strconv.Itoa(os.Getuid()))}
	uids, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	if os.Getuid() == 0 && strings.Fields(string(uids))[2] != "1" {
		list = append(list, testproc.Start(t, "stranger", "65534"))
	}
	return list
}

// Where Exclusive holds, no process of this user or another gets any of the traffic.
//
// On Linux a socket with SO_REUSEPORT that is admitted with another one of its user
// is not compared with the rest. So a user who binds several times gets the address of a
// socket that does not share (semantics' linuxDetour says how). Exclusive is supported where
// that takes nothing from the socket. Prefer shows what it takes elsewhere.
func TestExclusiveDetour(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	if testproc.OnGVisor() {
		t.Skip("gVisor compares with every socket")
	}
	const owner, strange = "owner", "stranger"
	bindTo := []string{"", ",device=lo", fmt.Sprint(",device=lo,cpu=", pin(t))}
	// Among more than ten sockets on a port, the kernel asks those on the same address.
	udp6 := []string{"udp4 ", "udp :: port,connect=[::1]:9", "udp6 ::1"}
	for i := range 12 {
		udp6 = append([]string{fmt.Sprintf("udp4 127.0.0.%d", 2+i)}, udp6...)
	}
	for i, other := range strangers(t) {
		for _, tt := range []struct {
			network, address string   // of the owner
			steps            []string // of the stranger: network, host, options if not "port"
			succeed          int      // how many, before one is refused
			gets             []string // which socket gets what is sent to the owner, as in bindTo
		}{
			{"tcp", ":0", []string{"tcp4 127.0.0.2", "tcp6 ::1", "tcp4 ", "tcp6 ", "tcp "}, 0, []string{owner, owner, owner}},
			{"udp", ":0", []string{"udp4 127.0.0.2", "udp6 :: afterbind", "udp6 ::1", "udp4 ", "udp "}, 0, []string{owner, owner, owner}},
			{"tcp4", "127.0.0.1:0", []string{"tcp4 127.0.0.2", "tcp6 ", "tcp ", "tcp4 ", "tcp4 127.0.0.1"}, 3, []string{owner, owner, owner}},
			{"tcp6", "[::1]:0", []string{"tcp4 127.0.0.2", "tcp4 ", "tcp ", "tcp6 ", "tcp6 ::1", "tcp ::1"}, 3, []string{owner, owner, owner}},
			{"tcp4", "0.0.0.0:0", []string{"tcp6 ", "tcp "}, 2, []string{owner, owner, strange}},
			{"tcp6", "[::]:0", []string{"tcp4 ", "tcp "}, 2, []string{owner, strange, strange}},
			{"udp4", "127.0.0.1:0", []string{"udp4 127.0.0.2", "udp4 ", "udp4 127.0.0.1"}, 3, []string{strange, strange, strange}},
			{"udp6", "[::1]:0", udp6, len(udp6), []string{owner, strange, strange}},
			{"udp4", "0.0.0.0:0", []string{"udp6 :: afterbind", "udp "}, 2, []string{owner, strange, strange}},
			{"udp6", "[::]:0", []string{"udp4 ", "udp "}, 2, []string{owner, strange, strange}},
		} {
			for j, more := range bindTo {
				name := fmt.Sprintf("stranger %d alongside %s %s with %s", i, tt.network, tt.address, more)
				exclusive := reuse.Config{Exclusive: reuse.On}
				if slices.Contains(tt.gets, strange) {
					err := bind(t.Context(), exclusive, tt.network, tt.address)
					require.ErrorIs(t, err, errors.ErrUnsupported, name)
					assert.ErrorContains(t, err, `":port"`, name)
					exclusive.Exclusive = reuse.Prefer
				}
				s, err := open(t.Context(), exclusive, tt.network, tt.address)
				require.NoError(t, err, name)
				go says(s, owner)
				step := func(i int) string {
					f := append(strings.Split(tt.steps[i], " "), "port")
					if i > 0 {
						f[2] += more
					}
					return other.Ask(f[0], net.JoinHostPort(f[1], portOf(s)), f[2])
				}
				require.NotEqual(t, "ok", step(len(tt.steps)-1), "%s: the last step at once", name)
				for i := range tt.steps {
					answer := step(i)
					assert.Equal(t, i < tt.succeed, answer == "ok", "%s: step %d: %s", name, i, answer)
				}
				to := target(tt.network, s)
				assert.Equal(t, tt.gets[j:j+1], answers(t, tt.network, to), name)

				// The owner closes, and starts again.
				require.NoError(t, s.Close())
				err = bind(t.Context(), exclusive, tt.network, local(s))
				if tt.succeed == 0 {
					assert.NoError(t, err, name)
				} else {
					assert.ErrorIs(t, err, unix.EADDRINUSE, name)
					assert.Equal(t, []string{strange}, answers(t, tt.network, to), name)
				}
				require.Equal(t, "ok", other.Ask("close"))
			}
		}
	}
}

// A connected UDP socket is not exclusive: a socket on the same address may connect to
// the same peer, and gets what that peer sends then.
func TestDialedUDPIsNotExclusive(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	if testproc.OnGVisor() {
		t.Skip("gVisor compares with every socket")
	}
	remote, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	defer remote.Close()
	for _, other := range strangers(t) {
		conn, err := reuse.Config{Exclusive: reuse.Prefer}.Dial(t.Context(), "udp6", "", local(remote))
		require.NoError(t, err)
		defer conn.Close()
		require.Equal(t, "ok", other.Ask("udp4", ":"+portOf(conn), "port"))
		require.Equal(t, "ok", other.Ask("udp", ":"+portOf(conn), "port,connect="+local(remote)))
		_, err = remote.WriteTo([]byte{0}, conn.LocalAddr())
		require.NoError(t, err)
		require.NoError(t, remote.SetDeadline(time.Now().Add(10*time.Second)))
		b := make([]byte, 100)
		n, _, err := remote.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "stranger", string(b[:n]))
		require.Equal(t, "ok", other.Ask("close"))
	}
}

// On a port that only root may bind, no other user gets the port of any socket.
func TestExclusiveOnPrivilegedPorts(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	if _, err := os.Stat("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil {
		t.Skipf("this kernel has no such ports: %v", err)
	}
	exclusive := reuse.Config{Exclusive: reuse.On}
	others := strangers(t)
	for _, at := range [][2]string{{"tcp4", "0.0.0.0:"}, {"tcp6", "[::]:"}, {"udp4", "127.0.0.1:"}, {"udp6", "[::]:"}} {
		require.ErrorIs(t, bind(t.Context(), exclusive, at[0], at[1]+"1024"), errors.ErrUnsupported)
		require.ErrorIs(t, bind(t.Context(), exclusive, at[0], at[1]+"0"), errors.ErrUnsupported)
		s, err := open(t.Context(), exclusive, at[0], at[1]+"1023")
		require.NoError(t, err, at)
		for _, other := range others[1:] {
			for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
				answer := other.Ask(network, ":1023", "port")
				assert.Contains(t, answer, unix.EACCES.Error(), "%v alongside %v", network, at)
			}
		}
		require.NoError(t, s.Close())
	}
	sysctl(t, "ipv4/ip_unprivileged_port_start", "0")
	require.ErrorIs(t, bind(t.Context(), exclusive, "tcp4", "0.0.0.0:80"), errors.ErrUnsupported)
}

// Sockets that are bound to different devices do not conflict, an IPv6-only :: is not
// exclusive, and SO_REUSEADDR lets others join on UDP. So the caller's own Control must
// not make that of a socket, before or after.
func TestControlCannotUndoExclusive(t *testing.T) {
	t.Parallel()
	needNetwork(t, "udp6")
	device := func(fd int) error { return unix.BindToDevice(fd, "lo") }
	v6only := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) }
	reuseaddr := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }
	for _, tt := range []struct {
		network string
		do      func(fd int) error
		option  reuse.Option
		want    error
	}{
		{"tcp", device, reuse.Exclusive, reuse.ErrConflict},
		{"tcp", v6only, reuse.Exclusive, errors.ErrUnsupported},
		{"udp", device, reuse.Exclusive, reuse.ErrConflict},
		{"udp", v6only, reuse.Exclusive, errors.ErrUnsupported},
		{"udp", reuseaddr, reuse.Addr, reuse.ErrConflict},
	} {
		c := reuse.Config{Exclusive: reuse.On}
		control := func(_, _ string, rc syscall.RawConn) error {
			return sockopt.Control(rc, func(fd uintptr) error { return tt.do(int(fd)) })
		}
		after, err := c.ListenConfig(net.ListenConfig{Control: control})
		require.NoError(t, err)
		before := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
			return errors.Join(control(network, address, rc), c.Control(network, address, rc))
		}}
		for i, lc := range []net.ListenConfig{after, before} {
			if tt.network == "tcp" {
				err = closed(lc.Listen(t.Context(), "tcp", ":0"))
			} else {
				err = closed(lc.ListenPacket(t.Context(), "udp", ":0"))
			}
			if errors.Is(err, unix.EPERM) {
				t.Skipf("this user may not bind to a device: %v", err)
			}
			if i == 1 && tt.option == reuse.Addr {
				require.NoError(t, err, "c clears it")
				continue
			}
			isOptionError(t, err, tt.option, tt.want, i)
		}
		c.Exclusive = reuse.Prefer
		require.NoError(t, closed(before.Listen(t.Context(), "tcp", ":0")))
	}
	// The bind of a link-local address binds the socket to a device.
	err := bind(t.Context(), reuse.Config{Exclusive: reuse.On}, "tcp", "[fe80::1%lo]:0")
	isOptionError(t, err, reuse.Exclusive, errors.ErrUnsupported)
}
