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

// listen listens on 127.0.0.1 with exactly these options.
func listen(t testing.TB, options semantics.Options) *net.TCPListener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
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
	}}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	return l.(*net.TCPListener)
}

// leave makes a connection, closes its listener, and brings what the listener
// accepted to a state. It returns the port that is left.
func leave(t *testing.T, options semantics.Options, state semantics.State) uint16 {
	t.Helper()
	l := listen(t, options)
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	require.NoError(t, l.Close())
	switch state {
	case semantics.TimeWait:
		require.NoError(t, server.Close())
		require.NoError(t, client.Close())
	case semantics.FinWait2:
		require.NoError(t, server.Close())
	case semantics.CloseWait:
		require.NoError(t, client.Close())
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	require.Eventually(t, func() bool { return kernelState(t, port) == state }, 10*time.Second, time.Millisecond)
	return port
}

// kernelState is what the kernel says of the socket with a local port.
func kernelState(t testing.TB, port uint16) semantics.State {
	text, err := os.ReadFile("/proc/self/net/tcp")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return map[string]semantics.State{
				"01": semantics.Established, "05": semantics.FinWait2, "06": semantics.TimeWait, "08": semantics.CloseWait,
			}[f[3]]
		}
	}
	return 0
}

// What a listener leaves behind, and a new listener with every option, of the
// same user and of another: as the rules say.
func TestLeftovers(t *testing.T) {
	if !alone(t) {
		return
	}
	s, _ := system(t)
	seconds := map[int]measure.Binder{os.Geteuid(): measure.Here{}}
	if os.Geteuid() == 0 {
		c := child{testproc.Start(t, "serve", strconv.Itoa(nobody))}
		if said := c.Receive(); said == "ready" {
			seconds[nobody] = c
		} else {
			t.Log("not as another user:", said)
		}
	}
	for _, state := range []semantics.State{semantics.Established, semantics.TimeWait, semantics.FinWait2, semantics.CloseWait} {
		for _, old := range s.Subsets() {
			port := leave(t, old, state)
			first := semantics.Binding{Proto: semantics.TCP, State: state, Addr: netip.MustParseAddr("127.0.0.1"), Options: old, User: os.Geteuid()}
			for user, second := range seconds {
				for _, options := range s.Subsets() {
					for _, addr := range []measure.Address{measure.Specific, measure.Specific2, measure.Wildcard, measure.Wildcard6} {
						p := measure.Pair{Proto: semantics.TCP, State: semantics.Listening, Second: addr, B: options}
						got, err := second.Bind(t.Context(), p, port)
						require.NoError(t, err)
						_, b := p.Bindings(user, user)
						assert.Equal(t, measure.Outcome(s.Second(first, b)), got, "%v %v, then %s %v of user %d", state, old, addr, options, user)
					}
				}
			}
		}
	}
}
