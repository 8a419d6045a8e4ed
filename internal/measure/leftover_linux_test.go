package measure_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// alone goes on in a network namespace of the test's own.
func alone(t *testing.T) bool { return testproc.Netns(t) }

func listen(t testing.TB, network, address string, options semantics.Options) net.Listener {
	t.Helper()
	setting := map[bool]reuse.Setting{false: reuse.Off, true: reuse.On}
	c := reuse.Config{Addr: setting[options.Has(semantics.Addr)], Port: setting[options.Has(semantics.Port)]}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	lc, err := c.ListenConfig(lc)
	require.NoError(t, err)
	l, err := lc.Listen(t.Context(), network, address)
	require.NoError(t, err)
	return l
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
	at := strconv.Itoa(int(port))
	l := listen(t, r.network, net.JoinHostPort(r.address, at), r.binding.Options)
	client, err := net.Dial("tcp", net.JoinHostPort(r.peer, at))
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
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
		state, whole = kernelState(t, port, client.LocalAddr().(*net.TCPAddr).Port)
		return state == r.binding.State
	}, 30*time.Second, time.Millisecond, "%+v", r)
	return r.binding.State != semantics.FinWait2 || !whole
}

// dial binds, then connects.
func (r rest) dial(t *testing.T, port uint16) {
	t.Helper()
	kind, to := unix.SOCK_DGRAM, 9 // nothing is sent
	if r.binding.Proto == semantics.TCP {
		l := listen(t, "tcp", net.JoinHostPort(r.peer, "0"), 0)
		t.Cleanup(func() { l.Close() })
		kind, to = unix.SOCK_STREAM, l.Addr().(*net.TCPAddr).Port
	}
	s, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(s) })
	for _, o := range []struct {
		level, name int
		on          bool
	}{
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, r.network == "tcp6"},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, r.binding.Options.Has(semantics.Addr)},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, r.binding.Options.Has(semantics.Port)},
	} {
		require.NoError(t, unix.SetsockoptInt(s, o.level, o.name, map[bool]int{true: 1}[o.on]))
	}
	local := netip.IPv6Unspecified()
	if r.address != "" {
		local = netip.MustParseAddr(r.address)
	}
	require.NoError(t, unix.Bind(s, &unix.SockaddrInet6{Addr: local.As16(), Port: int(port)}))
	require.NoError(t, unix.Connect(s, &unix.SockaddrInet6{Addr: netip.MustParseAddr(r.peer).As16(), Port: to}))
}

// kernelState is what the kernel says of the socket with a local and a remote port:
// its state, and whether it is more than what is left for TIME_WAIT.
func kernelState(t testing.TB, local uint16, remote int) (state semantics.State, whole bool) {
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
func rests() (list []rest) {
	ipv4, mapped, ipv6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1"), netip.IPv6Loopback()
	add := func(network, address string, local netip.Addr, only bool, b semantics.Binding) {
		b.Addr, b.V6Only = local, only
		list = append(list, rest{network, address, local.Unmap().String(), b})
	}
	for _, state := range []semantics.State{semantics.Established, semantics.TimeWait, semantics.FinWait2, semantics.CloseWait} {
		b := semantics.Binding{Proto: semantics.TCP, State: state}
		add("tcp4", "127.0.0.1", ipv4, false, b)
		add("tcp", "", mapped, false, b)
		add("tcp", "", ipv6, false, b)
		add("tcp6", "::", ipv6, true, b)
		add("tcp6", "::1", ipv6, true, b)
	}
	for _, proto := range []semantics.Proto{semantics.TCP, semantics.UDP} {
		b := semantics.Binding{Proto: proto, State: semantics.Established, Dialed: true}
		add("tcp", "", mapped, false, b)
		add("tcp", "", ipv6, false, b)
		add("tcp6", "", ipv6, true, b)
		add("tcp", "::1", ipv6, true, b)
	}
	return list
}

// What a listener leaves behind, or a socket that is connected has, and a new
// socket with every option, of the same user and of another: as the rules say.
func TestLeftovers(t *testing.T) {
	if !alone(t) {
		return
	}
	s, release := system(t)
	seconds := map[int]binder{os.Geteuid(): measure.Bind}
	if os.Geteuid() == 0 {
		if bind, said := start(t, strconv.Itoa(nobody)); said == "ready" {
			seconds[nobody] = bind
		} else {
			t.Log("not as another user:", said)
		}
	}
	rows, port := 0, uint16(10000) // below those that the kernel hands out
	for i, r := range rests() {
		for j, old := range s.Subsets() {
			r.binding.Options, r.binding.User = old, os.Geteuid()
			for k, addr := range []semantics.Binding{
				measure.Specific, measure.Specific2, measure.Wildcard, measure.Dual, measure.Wildcard6, measure.Specific6,
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
						b := semantics.Binding{
							Proto: r.binding.Proto, State: semantics.Listening, Addr: addr.Addr, V6Only: addr.V6Only, Options: options, User: user,
						}
						is, err := second(b, port)
						require.NoError(t, err)
						assert.Equal(t, measure.Outcome(s.Bind(r.binding, b)), is, "%+v, then %+v", r, b)
						rows++
					}
				}
			}
		}
	}
	t.Logf("%s %s: %d measured", s, release, rows)
}
