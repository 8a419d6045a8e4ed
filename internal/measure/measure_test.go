//go:build unix || windows

package measure_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

func with(b semantics.Binding, proto semantics.Proto, state semantics.State) semantics.Binding {
	b.Proto, b.State = proto, state
	return b
}

func bound(b semantics.Binding) semantics.Binding { return with(b, semantics.TCP, semantics.Bound) }
func udp(b semantics.Binding) semantics.Binding   { return with(b, semantics.UDP, semantics.Bound) }
func listening(b semantics.Binding) semantics.Binding {
	return with(b, semantics.TCP, semantics.Listening)
}

// A request asks another process for a second binding.
type request struct {
	Binding semantics.Binding
	Port    uint16
}

func TestMain(m *testing.M) {
	testproc.Main(m, map[string]testproc.Child{"serve": serve, "accept one": acceptOne})
}

// serve answers requests, as another user if one is named.
func serve(args []string, in *bufio.Scanner, out io.Writer) error {
	said := "ready"
	if len(args) > 0 {
		uid, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if err := measure.Become(uid); err != nil {
			said = "not allowed: " + err.Error()
		}
	}
	fmt.Fprintln(out, said)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return err
		}
		outcome, err := measure.Bind(r.Binding, r.Port)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, outcome)
	}
	return in.Err()
}

// acceptOne is a child that accepts one connection, and reads one byte if it has an argument.
func acceptOne(args []string, in *bufio.Scanner, out io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr().(*net.TCPAddr).Port)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, len(args))); err != nil {
		return err
	}
	fmt.Fprintln(out, "accepted")
	in.Scan()
	return in.Err()
}

// A binder is measure.Bind here or in another process.
type binder func(semantics.Binding, uint16) (string, error)

// start starts a child, as another user if one is named, and returns what it says.
func start(t testing.TB, user ...string) (bind binder, said string) {
	t.Helper()
	child := testproc.Start(t, "serve", user...)
	return func(b semantics.Binding, port uint16) (string, error) {
		line, err := json.Marshal(request{b, port})
		require.NoError(t, err)
		return child.Ask(string(line)), nil
	}, child.Receive()
}

const nobody = 65534

// system is the one that the test runs on.
func system(t testing.TB) (s semantics.System, release string) {
	t.Helper()
	if os.Getenv("WINEPREFIX") != "" && runtime.GOOS == "windows" {
		t.Skip("this is Wine, whose differences from Windows package semantics counts")
	}
	s, release, err := semantics.Running()
	require.NoError(t, err)
	return s, release
}

// allPairs are every address with every other.
func allPairs(s semantics.System) []measure.Pair {
	var addresses []measure.Pair
	for _, a := range measure.Addresses {
		for _, b := range measure.Addresses {
			addresses = append(addresses, measure.Pair{a, b})
		}
	}
	return measure.Pairs(s, addresses)
}

// deviates says that a kernel is known not to follow its rules for a pair.
func deviates(release string, p measure.Pair) bool {
	// Debian's 6.1.170 and 6.1.192 admit it in 21 of the cases.
	return runtime.GOOS == "linux" && strings.HasPrefix(release, "6.1.") &&
		p[0].Proto == semantics.TCP && p[0].Addr == measure.MappedWildcard.Addr && p[1].Addr == measure.Mapped.Addr
}

// What the rules say is what the kernel does, for every pair: bound by one process, by two,
// and by two of different users.
func TestRules(t *testing.T) {
	s, release := system(t)
	for _, tt := range []struct {
		name  string
		child []string // its arguments; nil: none
		user  int
	}{
		{"one process", nil, os.Geteuid()}, {"two processes", []string{}, os.Geteuid()},
		{"another user", []string{strconv.Itoa(nobody)}, nobody},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.user != os.Geteuid() && os.Geteuid() != 0 {
				t.Skip("only root can bind as another user")
			}
			if !alone(t) {
				return
			}
			second := measure.Bind
			if tt.child != nil {
				bind, said := start(t, tt.child...)
				if said != "ready" {
					t.Skip(said)
				}
				second = bind
			}
			all := allPairs(s)
			list := measure.Usable(all)
			require.NotEmpty(t, list)
			differences, unknown, count := 0, 0, 0
			for i, p := range list {
				if testing.Short() && tt.child != nil && i%5 != 0 {
					continue // where the processor is emulated, a process that waits for another one takes long
				}
				p[0].User, p[1].User = os.Geteuid(), tt.user
				is, want := "", measure.Outcome(s.Bind(p[0], p[1]))
				for i := 0; i < 3 && (i == 0 || is != want); i++ { // another process may take the port
					var err error
					is, err = measure.Measure(p, second)
					require.NoError(t, err, "%v", p)
				}
				count++
				switch {
				case want == "":
					unknown++
				case is != want && !deviates(release, p):
					if differences++; differences <= 20 {
						t.Errorf("%v: the rules of %s say %s, the kernel %s", p, s, want, is)
					}
				}
			}
			t.Logf("%s %s: %d pairs measured, %d without a rule, %d differ, %d with an address that is missing", s, release, count, unknown, differences, len(all)-len(list))
			if runtime.GOOS == "linux" && len(all) == len(list) && !testing.Short() {
				assert.Equal(t, 3888, count)
				assert.Zero(t, unknown)
			}
		})
	}
}

// Every system, and Wine, does this.
func TestMeasure(t *testing.T) {
	child, said := start(t)
	require.Equal(t, "ready", said)
	for _, second := range []binder{measure.Bind, child} {
		for _, tt := range []struct {
			pair measure.Pair
			want string
		}{
			{measure.Pair{listening(measure.Specific), listening(measure.Specific)}, "b:bind:EADDRINUSE"},
			{measure.Pair{udp(measure.Wildcard), udp(measure.Wildcard)}, "b:bind:EADDRINUSE"},
			{measure.Pair{listening(measure.Specific), listening(measure.Specific6)}, "ok"},
			{measure.Pair{udp(measure.Wildcard), udp(measure.Wildcard6)}, "ok"},
		} {
			for _, p := range measure.Usable([]measure.Pair{tt.pair}) { // none without IPv6
				got, err := measure.Measure(p, second)
				require.NoError(t, err, "%v", p)
				assert.Equal(t, tt.want, got, "%v", p)
			}
		}
	}
}
