package reuse_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
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

// stranger is a child that becomes the user that it is told, and listens. Each
// line of input is a network, an address, a device or "-" and a CPU or -1; it
// answers "ok" or the error, and keeps what it bound until it is told "close".
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
		cpu, err := strconv.Atoi(f[3])
		if err != nil {
			return err
		}
		s, err := scored(context.Background(), f[0], f[1], f[2], cpu)
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

// scored listens with SO_REUSEPORT, and with what the kernel's look-up likes: the
// device and the CPU that a connection comes from.
func scored(ctx context.Context, network, address, device string, cpu int) (io.Closer, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, rc syscall.RawConn) (err error) {
		cerr := rc.Control(func(fd uintptr) {
			if device != "-" {
				err = unix.BindToDevice(int(fd), device)
			}
			if err == nil && cpu >= 0 {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_INCOMING_CPU, cpu)
			}
		})
		if cerr != nil {
			return cerr
		}
		return err
	}
	lc, err := reuse.Config{PortLB: reuse.On}.ListenConfig(lc)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(network, "udp") {
		return lc.ListenPacket(ctx, network, address)
	}
	return lc.Listen(ctx, network, address)
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

// What Exclusive does not keep off on Linux: somebody, of any user, who binds more
// than once. A socket with SO_REUSEPORT that is let in beside another one of its own
// user is not compared with the rest, and so a first one that the owner does not
// overlap opens the door to a second that it does. On TCP the kernel compares with
// the last one that shared, and takes a wildcard of one family for equal to
// a dual-stack one (inet_csk_get_port, sk_reuseport_match); on UDP it stops at the
// first one that shares (udp_lib_lport_inuse), where IPv6's come last. Then the
// look-up prefers the newest on a specific address, and a socket that is bound to
// the device, for IPv4 on TCP also to the CPU, that the packet comes from.
//
// Nobody gets in beside a dual-stack socket, which leaves nothing for the first step.
func TestExclusiveDetour(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	const owner, strange = "owner", "stranger"
	var cpus unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	cpu := 0
	for !cpus.IsSet(cpu) {
		cpu++
	}
	users := []int{os.Getuid()}
	if user := 65534; os.Getuid() == 0 && mapped(t, user) {
		users = append(users, user)
	}
	for _, user := range users {
		other := testproc.Start(t, "stranger", strconv.Itoa(user))
		for _, tt := range []struct {
			network, address string   // of the owner
			steps            []string // of the stranger: network and host
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
			{"udp6", "[::1]:0", []string{"udp4 ", "udp "}, 2, owner, owner, owner},
			{"udp4", "0.0.0.0:0", []string{"udp6 ", "udp "}, 1, owner, owner, owner},
			{"udp6", "[::]:0", []string{"udp4 ", "udp "}, 2, owner, strange, strange},
			{"udp", ":0", []string{"udp4 ", "udp "}, 0, owner, owner, owner},
			{"udp", ":0", []string{"udp6 ", "udp "}, 0, owner, owner, owner},
		} {
			for _, with := range []struct{ socket, gets string }{
				{"- -1", tt.plain}, {"lo -1", tt.device}, {fmt.Sprintf("lo %d", cpu), tt.cpu},
			} {
				name := fmt.Sprintf("user %d beside %s %s with %s", user, tt.network, tt.address, with.socket)
				exclusive := reuse.Config{Exclusive: reuse.On}
				s, at, err := open(t.Context(), exclusive, tt.network, tt.address)
				require.NoError(t, err, name)
				go says(s, owner)
				step := func(i int) string {
					network, host, _ := strings.Cut(tt.steps[i], " ")
					device := with.socket
					if i == 0 {
						device = "- -1"
					}
					return other.Ask(network, net.JoinHostPort(host, portOf(at)), device)
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
