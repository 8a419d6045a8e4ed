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

// stranger is a child that becomes the user of its argument, and listens. Each line
// of input is a network, an address, options such as "addr,port" or "-", a device or
// "-" and a CPU or -1. Option "afterbind" is SO_REUSEPORT after the bind, and
// "connect=ADDRESS" connects a UDP socket. It answers "ok" or the error, and keeps what
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
		s, err := rival(f[0], f[1], f[2], f[3], f[4])
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
func rival(network, address, options, device, cpu string) (io.Closer, error) {
	has := func(o string) int { return strings.Count(","+options+",", ","+o+",") }
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return sockopt.Control(rc, func(fd uintptr) error {
			err := errors.Join(sockopt.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, has("addr")), sockopt.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, has("port")))
			if device != "-" {
				err = errors.Join(err, unix.BindToDevice(int(fd), device))
			}
			if n, cpuErr := strconv.Atoi(cpu); n >= 0 {
				err = errors.Join(err, cpuErr, sockopt.Set(fd, unix.SOL_SOCKET, unix.SO_INCOMING_CPU, n))
			}
			return err
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
	return p, sockopt.Control(rc, func(fd uintptr) error {
		if has("afterbind") > 0 {
			return sockopt.Set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		_, to, ok := strings.Cut(options, "connect=")
		if !ok {
			return nil
		}
		peer := netip.MustParseAddrPort(to)
		if peer.Addr().Is4() {
			return unix.Connect(int(fd), &unix.SockaddrInet4{Addr: peer.Addr().As4(), Port: int(peer.Port())})
		}
		return unix.Connect(int(fd), &unix.SockaddrInet6{Addr: peer.Addr().As16(), Port: int(peer.Port())})
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

// Where Exclusive holds, no process of this user or another gets any of the traffic,
// whatever it binds and sets. In a release each option and each detour is also tried
// alone. Linux and gVisor differ in how they can be attacked.
func TestExclusiveKeepsTraffic(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	others := strangers(t)
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp"} {
		address := ":20002"
		if network[3:] != "" {
			address = net.JoinHostPort(localhost(network), "20001")
		}
		s, err := open(t.Context(), reuse.Config{Exclusive: reuse.On}, network, address)
		require.NoError(t, err)
		defer s.Close()
		go says(s, "owner")
		p := network[:3]
		kinds, detours := []string{"port"}, [][]string{{p + "4 127.0.0.2", p + "4 0.0.0.0", p + "6 ::"}}
		if release {
			kinds = []string{"-", "addr", "port", "addr,port"}
			detours = append(detours, nil, []string{p + "4 127.0.0.2"}, []string{p + "4 0.0.0.0"}, []string{p + "6 ::"}, []string{p + "4 127.0.0.2", p + "4 0.0.0.0"})
		}
		for _, other := range others {
			for _, options := range kinds {
				for _, device := range []string{"-", "lo"} {
					for _, detour := range detours {
						bind := func(step, device string) {
							network, host, _ := strings.Cut(step, " ")
							other.Ask(network, net.JoinHostPort(host, portOf(s)), options, device, "-1")
						}
						for _, step := range detour {
							bind(step, "-")
						}
						for _, step := range []string{p + "4 127.0.0.1", p + "4 0.0.0.0", p + "6 ::1", p + "6 ::", p + " "} {
							bind(step, device)
						}
						assert.Equal(t, []string{"owner"}, answers(t, p, target(network, s)), "%s %s %s %v", network, options, device, detour)
						require.Equal(t, "ok", other.Ask("close"))
					}
				}
			}
		}
	}
}

// On Linux a socket with SO_REUSEPORT that is admitted with another one of its user
// is not compared with the rest. So a user who binds several times gets the address of a
// socket that does not share (semantics' linuxDetour says how). Exclusive is supported where
// that takes nothing from the socket. Prefer shows what it takes elsewhere.
func TestExclusiveDetour(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	if testproc.OnGVisor() {
		t.Skip("gVisor compares with every socket: TestExclusiveKeepsTraffic tries the same binds")
	}
	const owner, strange = "owner", "stranger"
	cpu := pin(t)
	// Among more than ten sockets on a port, the kernel asks those on the same address.
	steps6 := []string{"udp4 ", "udp :: port,connect=[::1]:9", "udp6 ::1"}
	for i := range 12 {
		steps6 = append([]string{fmt.Sprintf("udp4 127.0.0.%d", 2+i)}, steps6...)
	}
	binds := []string{"- -1", "lo -1", fmt.Sprint("lo ", cpu)} // to nothing, to the device, and also to the CPU
	for i, other := range strangers(t) {
		for _, tt := range []struct {
			network, address string   // of the owner
			steps            []string // of the stranger: network, host, options if not "port"
			succeed          int      // how many, before one is refused
			gets             []string // which socket gets what is sent to the owner, as in binds
		}{
			{"tcp4", "127.0.0.1:0", []string{"tcp6 ", "tcp "}, 2, []string{owner, owner, owner}},
			{"tcp6", "[::1]:0", []string{"tcp4 ", "tcp "}, 2, []string{owner, owner, owner}},
			{"tcp4", "0.0.0.0:0", []string{"tcp6 ", "tcp "}, 2, []string{owner, owner, strange}},
			{"tcp6", "[::]:0", []string{"tcp4 ", "tcp "}, 2, []string{owner, strange, strange}},
			{"tcp", ":0", []string{"tcp4 ", "tcp "}, 0, []string{owner, owner, owner}},
			{"tcp", ":0", []string{"tcp6 ", "tcp "}, 0, []string{owner, owner, owner}},
			{"udp4", "127.0.0.1:0", []string{"udp4 127.0.0.2", "udp4 ", "udp4 127.0.0.1"}, 3, []string{strange, strange, strange}},
			{"udp6", "[::1]:0", steps6, len(steps6), []string{owner, strange, strange}},
			{"udp4", "0.0.0.0:0", []string{"udp6 :: afterbind", "udp "}, 2, []string{owner, strange, strange}},
			{"udp6", "[::]:0", []string{"udp4 ", "udp "}, 2, []string{owner, strange, strange}},
			{"udp", ":0", []string{"udp4 ", "udp "}, 0, []string{owner, owner, owner}},
			{"udp", ":0", []string{"udp6 ", "udp "}, 0, []string{owner, owner, owner}},
		} {
			for j, boundTo := range binds {
				name := fmt.Sprintf("stranger %d alongside %s %s with %s", i, tt.network, tt.address, boundTo)
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
					device := boundTo
					if i == 0 {
						device = binds[0]
					}
					return other.Ask(f[0], net.JoinHostPort(f[1], portOf(s)), f[2], device)
				}
				last := len(tt.steps) - 1
				require.NotEqual(t, "ok", step(last), "%s: the last step at once", name)
				for i := range tt.steps {
					answer := step(i)
					assert.Equal(t, i < tt.succeed, answer == "ok", "%s: step %d: %s", name, i, answer)
				}
				to := target(tt.network, s)
				assert.Equal(t, tt.gets[j:j+1], answers(t, tt.network, to), name)

				// The owner closes, and starts again.
				require.NoError(t, s.Close())
				err = bind(t.Context(), exclusive, tt.network, local(s))
				if tt.succeed > last {
					assert.ErrorIs(t, err, unix.EADDRINUSE, name)
					assert.Equal(t, []string{strange}, answers(t, tt.network, to), name)
				} else if tt.succeed == 0 {
					assert.NoError(t, err, name)
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
	for _, other := range strangers(t) {
		for network, steps := range map[string][]string{
			"udp4": {"udp4 127.0.0.2", "udp4 ", "udp4 127.0.0.1"},
			"udp6": {"udp4 ", "udp "},
		} {
			remote, err := net.ListenPacket(network, loopback(network))
			require.NoError(t, err)
			defer remote.Close()
			conn, err := reuse.Config{Exclusive: reuse.Prefer}.Dial(t.Context(), network, "", local(remote))
			require.NoError(t, err)
			defer conn.Close()
			for i, step := range steps {
				options := "port"
				if i == len(steps)-1 {
					options += ",connect=" + local(remote)
				}
				step, host, _ := strings.Cut(step, " ")
				require.Equal(t, "ok", other.Ask(step, net.JoinHostPort(host, portOf(conn)), options, "-", "-1"))
			}
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
				answer := other.Ask(network, ":1023", "port", "-", "-1")
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
		before  bool // the same before c is seen
	}{
		{"tcp4", device, reuse.Exclusive, reuse.ErrConflict, true},
		{"tcp", device, reuse.Exclusive, reuse.ErrConflict, true},
		{"tcp", v6only, reuse.Exclusive, errors.ErrUnsupported, true},
		{"udp", device, reuse.Exclusive, reuse.ErrConflict, true},
		{"udp", v6only, reuse.Exclusive, errors.ErrUnsupported, true},
		{"udp", reuseaddr, reuse.Addr, reuse.ErrConflict, false},
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
			if tt.network == "udp" {
				err = closed(lc.ListenPacket(t.Context(), tt.network, ":0"))
			} else {
				err = closed(lc.Listen(t.Context(), tt.network, loopback(tt.network)))
			}
			if errors.Is(err, unix.EPERM) {
				t.Skipf("this user may not bind to a device: %v", err)
			}
			if i == 1 && !tt.before {
				require.NoError(t, err)
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
