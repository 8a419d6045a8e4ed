package measure_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// exactly gives a socket these options and no others.
func exactly(options semantics.Options) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		bit := func(o semantics.Option) int {
			if options.Has(o) {
				return 1
			}
			return 0
		}
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, bit(semantics.Addr))
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, bit(semantics.Port))
			}
		})
		if cerr != nil {
			return cerr
		}
		return err
	}
}

func listen(t testing.TB, network, address string, options semantics.Options) *net.TCPListener {
	t.Helper()
	lc := net.ListenConfig{Control: exactly(options)}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, address)
	require.NoError(t, err)
	return l.(*net.TCPListener)
}

// A rest is what is left of a socket.
type rest struct {
	network, address string // where it, or its listener, was bound; "" is ::, IPv4 too
	peer             string // host
	binding          semantics.Binding
}

// leave brings the rest of a socket on a port to its state. It returns false if the
// kernel has kept a whole socket in FIN-WAIT-2: where the ACK of the FIN comes while
// the socket is held, it becomes no TIME_WAIT one (tcp_rcv_state_process), and counts
// as its user's still. It was so with 2 of some thousands, in machines that were
// emulated and busy.
func (r rest) leave(t *testing.T, port uint16) bool {
	t.Helper()
	if r.binding.Dialed {
		r.dial(t, port)
		return true
	}
	l := listen(t, r.network, net.JoinHostPort(r.address, strconv.Itoa(int(port))), r.binding.Options)
	defer l.Close()
	client, err := net.Dial("tcp", net.JoinHostPort(r.peer, strconv.Itoa(int(port))))
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	peer := client.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	server, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	require.NoError(t, l.Close())
	switch r.binding.State {
	case semantics.TimeWait:
		require.NoError(t, server.Close())
		require.NoError(t, client.Close())
	case semantics.FinWait2:
		require.NoError(t, server.Close())
	case semantics.CloseWait:
		require.NoError(t, client.Close())
	}
	whole := false
	require.Eventually(t, func() bool {
		var state semantics.State
		state, whole = kernelState(t, port, peer)
		return state == r.binding.State
	}, 30*time.Second, time.Millisecond, "%+v", r)
	return r.binding.State != semantics.FinWait2 || !whole
}

// dial binds, then connects.
func (r rest) dial(t *testing.T, port uint16) {
	t.Helper()
	kind := unix.SOCK_STREAM
	var to net.Addr
	if r.binding.Proto == semantics.UDP {
		kind = unix.SOCK_DGRAM
		p, err := net.ListenPacket("udp", net.JoinHostPort(r.peer, "0"))
		require.NoError(t, err)
		t.Cleanup(func() { p.Close() })
		to = p.LocalAddr()
	} else {
		l := listen(t, "tcp", net.JoinHostPort(r.peer, "0"), 0)
		t.Cleanup(func() { l.Close() })
		to = l.Addr()
	}
	peer := netip.MustParseAddrPort(to.String())
	s, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(s), "dialed")
	t.Cleanup(func() { f.Close() })
	only := 0
	if r.network[3:] == "6" {
		only = 1
	}
	require.NoError(t, unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
	rc, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, exactly(r.binding.Options)("", "", rc))
	local := netip.IPv6Unspecified()
	if r.address != "" {
		local = netip.MustParseAddr(r.address)
	}
	require.NoError(t, unix.Bind(s, &unix.SockaddrInet6{Addr: local.As16(), Port: int(port)}))
	require.NoError(t, unix.Connect(s, &unix.SockaddrInet6{Addr: peer.Addr().As16(), Port: int(peer.Port())}))
}

// kernelState is what the kernel says of the socket with a local and a remote port:
// its state, and whether it is more than what is left for TIME_WAIT.
func kernelState(t testing.TB, local, remote uint16) (state semantics.State, whole bool) {
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/self/net/" + name)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 5 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", local)) && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", remote)) {
				return map[string]semantics.State{
					"01": semantics.Established, "05": semantics.FinWait2, "06": semantics.TimeWait, "08": semantics.CloseWait,
				}[f[3]], !strings.HasPrefix(f[5], "03:") // the timer of TIME_WAIT
			}
		}
	}
	return 0, true
}

// rests are what listeners and connected sockets leave: IPv4, both families, IPv6.
func rests() []rest {
	var list []rest
	ipv4, mapped, ipv6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1"), netip.IPv6Loopback()
	for _, state := range []semantics.State{semantics.Established, semantics.TimeWait, semantics.FinWait2, semantics.CloseWait} {
		b := semantics.Binding{Proto: semantics.TCP, State: state}
		for _, r := range []rest{
			{"tcp4", "127.0.0.1", "127.0.0.1", semantics.Binding{Addr: ipv4}},
			{"tcp", "", "127.0.0.1", semantics.Binding{Addr: mapped}},
			{"tcp", "", "::1", semantics.Binding{Addr: ipv6}},
			{"tcp6", "::", "::1", semantics.Binding{Addr: ipv6, V6Only: true}},
			{"tcp6", "::1", "::1", semantics.Binding{Addr: ipv6, V6Only: true}},
		} {
			b.Addr, b.V6Only = r.binding.Addr, r.binding.V6Only
			r.binding = b
			list = append(list, r)
		}
	}
	for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
		b := semantics.Binding{Proto: proto, State: semantics.Established, Addr: ipv6, Dialed: true}
		only := b
		only.V6Only = true
		four := b
		four.Addr = mapped
		list = append(list, rest{"tcp", "", "127.0.0.1", four}, rest{"tcp", "", "::1", b}, rest{"tcp6", "", "::1", only}, rest{"tcp", "::1", "::1", only})
	}
	return list
}

// name is what the rows call the address of a rest.
func (r rest) name() string {
	switch b := r.binding; {
	case b.Addr.Is4():
		return "specific"
	case b.Addr.Is4In6():
		return "mapped"
	case b.V6Only:
		return "specific6"
	}
	return "specific6-dual"
}

// What a listener leaves behind, or a socket that is connected has, and a new
// socket with every option, of the same user and of another: as the rules say.
func TestLeftovers(t *testing.T) {
	if !alone(t) {
		return
	}
	s, release := system(t)
	seconds := map[int]measure.Binder{os.Geteuid(): measure.Here{}}
	if os.Geteuid() == 0 {
		c := child{testproc.Start(t, "serve", strconv.Itoa(nobody))}
		if said := c.Receive(); said == "ready" {
			seconds[nobody] = c
		} else {
			t.Log("not as another user:", said)
		}
	}
	rows := 0
	port := uint16(10000) // below those that the kernel hands out
	for i, r := range rests() {
		for j, old := range s.Subsets() {
			r.binding.Options, r.binding.User = old, os.Geteuid()
			for k, addr := range []measure.Address{
				measure.Specific, measure.Specific2, measure.Wildcard, measure.Wildcard6, measure.Wildcard6Only, measure.Specific6,
			} {
				if testing.Short() && (i+j+k)%3 != 0 {
					continue // as for sample
				}
				// Each has a port of its own: the kernel remembers the last address
				// that was let in with SO_REUSEPORT, and takes others for it.
				port++
				for last := port + 10; !r.leave(t, port); port++ {
					require.Less(t, port, last)
				}
				for user, second := range seconds {
					for _, options := range s.Subsets() {
						p := measure.Pair{Proto: r.binding.Proto, State: semantics.Listening, Second: addr, B: options}
						got, err := second.Bind(t.Context(), p, port)
						require.NoError(t, err)
						_, b := p.Bindings(user, user)
						assert.Equal(t, measure.Outcome(s.Second(r.binding, b)), got, "%s, %+v, then %s %v of user %d", r.name(), r.binding, addr, options, user)
						rows++
					}
				}
			}
		}
	}
	t.Logf("%v %s: %d measured", s, release, rows)
}
