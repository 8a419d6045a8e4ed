package measure_test

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// alone continues in a network namespace of the test's own.
func alone(t *testing.T) bool { return testproc.Netns(t) }

// connection returns the state that the kernel has for a connection from a local port, 0 if
// there is none, Bound if none of those here. timeWait is how long the kernel still keeps
// it, if it keeps no whole socket.
func connection(t testing.TB, port int) (state semantics.State, timeWait time.Duration) {
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/self/net/" + name)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 6 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) || f[3] == "0A" { // a listener
				continue
			}
			if timer, ok := strings.CutPrefix(f[5], "03:"); ok { // that of TIME_WAIT, in hundredths of a second
				n, err := strconv.ParseInt(timer, 16, 64)
				require.NoError(t, err)
				timeWait = time.Duration(n) * 10 * time.Millisecond
			}
			return cmp.Or(map[string]semantics.State{
				"01": semantics.Established, "05": semantics.FinWait2, "06": semantics.TimeWait, "08": semantics.CloseWait,
			}[f[3]], semantics.Bound), timeWait
		}
	}
	return 0, 0
}

// A rest is what is left of a socket: of a listener a connection, or a connected socket.
type rest struct{ from, left semantics.Binding }

// leave brings the rest of a socket on a port to its state. It returns false if the
// kernel has kept a whole socket in FIN-WAIT-2: where the ACK of the FIN comes while
// the socket is held, it becomes no TIME_WAIT one (tcp_rcv_state_process), and counts
// as its user's still. It was so with 2 of some thousands, in machines that were
// emulated and busy.
func (r rest) leave(t *testing.T, port uint16) bool {
	t.Helper()
	peer := r.left.Addr.Unmap().String()
	s, err := measure.Open(r.from, port)
	require.NoError(t, err)
	file := os.NewFile(uintptr(s), "")
	t.Cleanup(func() { file.Close() })
	if r.left.Dialed {
		to := &unix.SockaddrInet6{Addr: r.left.Addr.As16(), Port: 9} // nothing is sent
		if r.left.Proto == semantics.TCP {
			l, err := net.Listen("tcp", net.JoinHostPort(peer, "0"))
			require.NoError(t, err)
			t.Cleanup(func() { l.Close() })
			to.Port = l.Addr().(*net.TCPAddr).Port
		}
		require.NoError(t, unix.Connect(s, to))
		return true
	}
	l, err := net.FileListener(file)
	require.NoError(t, err)
	client, err := net.Dial("tcp", net.JoinHostPort(peer, strconv.Itoa(int(port))))
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	require.NoError(t, l.Close())
	require.NoError(t, file.Close())
	if r.left.State == semantics.TimeWait || r.left.State == semantics.FinWait2 {
		require.NoError(t, server.Close())
	}
	if r.left.State == semantics.TimeWait || r.left.State == semantics.CloseWait {
		require.NoError(t, client.Close())
	}
	timer := await(t, int(port), r.left.State)
	return r.left.State != semantics.FinWait2 || timer > 0
}

// rests are what listeners and connected sockets leave: IPv4, both families, IPv6.
func rests() (list []rest) {
	for _, r := range []rest{
		{measure.Specific, measure.Specific}, {measure.Dual, measure.Mapped},
		{measure.Dual, measure.Specific6}, {measure.Wildcard6, measure.Specific6}, {measure.Specific6, measure.Specific6},
	} {
		r.left.V6Only = r.left.Addr.Is6() && r.from != measure.Dual
		for _, state := range []semantics.State{semantics.Established, semantics.TimeWait, semantics.FinWait2, semantics.CloseWait} {
			list = append(list, rest{listening(r.from), with(r.left, semantics.TCP, state)})
		}
		r.left.Dialed = true
		for _, from := range []semantics.Binding{bound(r.from), udp(r.from)} {
			if from.Addr.Is6() {
				list = append(list, rest{from, with(r.left, from.Proto, semantics.Established)})
			}
		}
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
			r.from.Options, r.left.Options, r.left.User = old, old, os.Geteuid()
			for k, b := range []semantics.Binding{
				measure.Specific, measure.Specific2, measure.Wildcard, measure.Dual, measure.Wildcard6, measure.Specific6,
			} {
				if testing.Short() && (i+j+k)%3 != 0 {
					continue
				}
				// Each has a port of its own: the kernel remembers the last address
				// that was admitted with SO_REUSEPORT, and takes others for it.
				port++
				for last := port + 10; !r.leave(t, port); port++ {
					require.Less(t, port, last)
				}
				b = with(b, r.left.Proto, semantics.Listening)
				for user, second := range seconds {
					b.User = user
					for _, b.Options = range s.Subsets() {
						is, err := second(b, port)
						require.NoError(t, err)
						assert.Equal(t, measure.Outcome(s.Bind(r.left, b)), is, "%v, then %v", r, b)
						rows++
					}
				}
			}
		}
	}
	t.Logf("%v %s: %d measured", s, release, rows)
}
