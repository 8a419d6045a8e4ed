package measure_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
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

func TestMain(m *testing.M) {
	testproc.Main(m, map[string]testproc.Child{
		// serve makes second bindings, as another user if one is named.
		"serve": func(args []string, in *bufio.Scanner, out io.Writer) error {
			if len(args) > 0 {
				uid, err := strconv.Atoi(args[0])
				if err != nil {
					return err
				}
				if err := measure.Become(uid); err != nil {
					_, err := io.WriteString(out, "not allowed: "+err.Error()+"\n")
					return err
				}
			}
			if _, err := io.WriteString(out, "ready\n"); err != nil {
				return err
			}
			for in.Scan() {
				if err := measure.Serve(bytes.NewReader(in.Bytes()), out); err != nil {
					return err
				}
			}
			return in.Err()
		},
	})
}

// child is a Binder in another process.
type child struct{ *testproc.Process }

func (c child) Bind(ctx context.Context, p measure.Pair, port uint16) (string, error) {
	talk := talk{Process: c.Process}
	return measure.NewPeer(&talk, &talk.answers).Bind(ctx, p, port)
}

// talk sends each line to the child and keeps its answer.
type talk struct {
	*testproc.Process
	answers bytes.Buffer
}

func (t *talk) Write(line []byte) (int, error) {
	t.answers.WriteString(t.Ask(strings.TrimSuffix(string(line), "\n")) + "\n")
	return len(line), nil
}

const nobody = 65534

// system is the one that the test runs on.
func system(t testing.TB) (s semantics.System, release string) {
	t.Helper()
	release, version := uname(t)
	s, err := semantics.On(runtime.GOOS, release, version)
	require.NoError(t, err)
	return s, release
}

// deviates says that a kernel is known not to follow its rules for a pair.
func deviates(goos, release string, p measure.Pair) bool {
	// Debian's 6.1.170 and 6.1.192 admit it in 21 of the cases.
	return goos == "linux" && strings.HasPrefix(release, "6.1.") &&
		p.Proto == semantics.TCP && p.First == measure.MappedWildcard && p.Second == measure.Mapped
}

// descriptors counts the open ones, where that is easy.
func descriptors(t testing.TB) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// sample is every fifth of a list, which has no loop of five in it: where the processor
// is emulated, a process that waits for another one takes long.
func sample[T any](list []T) (some []T) {
	for i := 0; i < len(list); i += 5 {
		some = append(some, list[i])
	}
	return some
}

// compare measures every pair of addresses, options and protocols, and compares
// each with the rules.
func compare(t *testing.T, firstUser, secondUser int, second measure.Binder) {
	s, release := system(t)
	list, missing := measure.Usable(measure.AllPairs(s))
	for a, err := range missing {
		t.Logf("not measured: %s: %v", a, err)
	}
	require.NotEmpty(t, list)
	if _, here := second.(measure.Here); testing.Short() && !here {
		list = sample(list)
	}
	differences, unknown, open := 0, 0, descriptors(t)
	for _, p := range list {
		want := measure.Outcome(s.Second(p.Bindings(firstUser, secondUser)))
		got, err := measure.Measure(t.Context(), p, second)
		require.NoError(t, err, "%v", p)
		if got != want && !isolated {
			got, err = measure.Measure(t.Context(), p, second) // somebody took the port
			require.NoError(t, err, "%v", p)
		}
		switch {
		case want == "":
			unknown++
		case got != want && !deviates(runtime.GOOS, release, p):
			differences++
			if differences <= 20 {
				t.Errorf("%v: the rules of %v say %s, the kernel %s", p, s, want, got)
			}
		}
	}
	assert.Zero(t, differences, "of %d", len(list))
	assert.Equal(t, open, descriptors(t), "sockets that were left open")
	t.Logf("%v %s: %d pairs measured, %d without a rule, %d differ", s, release, len(list), unknown, differences)
	if runtime.GOOS == "linux" && len(missing) == 0 && !testing.Short() {
		assert.Len(t, list, 3888)
		assert.Zero(t, unknown)
	}
}

func skipWithoutRules(t *testing.T) {
	switch runtime.GOOS {
	case "js", "wasip1", "plan9":
		t.Skip("there are no socket options to measure")
	}
	if onWine() {
		t.Skip("this is Wine, whose differences from Windows package semantics counts")
	}
}

func TestRulesOneProcess(t *testing.T) {
	skipWithoutRules(t)
	if !alone(t) {
		return
	}
	compare(t, os.Geteuid(), os.Geteuid(), measure.Here{})
}

func TestRulesTwoProcesses(t *testing.T) {
	skipWithoutRules(t)
	if !alone(t) {
		return
	}
	c := child{testproc.Start(t, "serve")}
	require.Equal(t, "ready", c.Receive())
	compare(t, os.Geteuid(), os.Geteuid(), c)
}

func TestRulesAnotherUser(t *testing.T) {
	skipWithoutRules(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can bind as another user")
	}
	if !alone(t) {
		return
	}
	c := child{testproc.Start(t, "serve", strconv.Itoa(nobody))}
	if said := c.Receive(); said != "ready" {
		t.Skip(said)
	}
	compare(t, 0, nobody, c)
}

// What every system does, and Wine.
func TestMeasure(t *testing.T) {
	switch runtime.GOOS {
	case "js", "wasip1", "plan9":
		_, err := measure.Measure(t.Context(), measure.Pair{Proto: semantics.TCP, State: semantics.Bound, First: measure.Specific, Second: measure.Specific}, measure.Here{})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	c := child{testproc.Start(t, "serve")}
	require.Equal(t, "ready", c.Receive())
	for _, second := range []measure.Binder{measure.Here{}, c} {
		for _, tt := range []struct {
			p    measure.Pair
			want string
		}{
			{measure.Pair{Proto: semantics.TCP, State: semantics.Listening, First: measure.Specific, Second: measure.Specific}, "b:bind:EADDRINUSE"},
			{measure.Pair{Proto: semantics.UDP, State: semantics.Bound, First: measure.Wildcard, Second: measure.Wildcard}, "b:bind:EADDRINUSE"},
			{measure.Pair{Proto: semantics.TCP, State: semantics.Bound, First: measure.Specific, Second: measure.Specific6}, "ok"},
			{measure.Pair{Proto: semantics.UDP, State: semantics.Bound, First: measure.Wildcard, Second: measure.Wildcard6Only}, "ok"},
		} {
			if usable, missing := measure.Usable([]measure.Pair{tt.p}); len(usable) == 0 {
				t.Logf("%v: %v", tt.p, missing)
				continue
			}
			got, err := measure.Measure(t.Context(), tt.p, second)
			require.NoError(t, err, "%v", tt.p)
			assert.Equal(t, tt.want, got, "%v", tt.p)
		}
	}
}

// The twelve pairs of addresses of the tables.
func TestPairs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]int{
		"linux": {576, 3888}, "netbsd": {576, 3888}, "freebsd": {2304, 15552}, "windows": {576, 3888},
		"solaris-11.4": {2304, 15552}, "js": {36, 243},
	} {
		s, err := semantics.Find(name)
		require.NoError(t, err)
		assert.Len(t, measure.Pairs(s), want[0], name)
		assert.Len(t, measure.AllPairs(s), want[1], name)
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	p := measure.Pair{Proto: semantics.TCP, State: semantics.Listening, First: measure.Wildcard6Only, Second: measure.Specific,
		B: semantics.Opts(semantics.Addr, semantics.Port)}
	got, err := json.Marshal(p.Row("linux", "6.18", true, "b:bind:EADDRINUSE"))
	require.NoError(t, err)
	assert.Equal(t, `{"os":"linux","release":"6.18","proto":"tcp","state":"listening","a_addr":"wildcard6only","b_addr":"specific","a_opts":[],"b_opts":["addr","port"],"same_uid":true,"outcome":"b:bind:EADDRINUSE"}`, string(got))
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	good := measure.Pair{Proto: semantics.UDP, State: semantics.Bound, First: measure.Specific, Second: measure.Specific2}
	for _, change := range []func(*measure.Pair){
		func(p *measure.Pair) { p.Proto = 0 },
		func(p *measure.Pair) { p.State = semantics.TimeWait },
		func(p *measure.Pair) { p.First = "nowhere" },
		func(p *measure.Pair) { p.Second = "" },
	} {
		p := good
		change(&p)
		outcome, err := measure.Measure(t.Context(), p, measure.Here{})
		assert.Error(t, err, "%v", p)
		assert.Empty(t, outcome)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := measure.Measure(ctx, good, measure.Here{})
	assert.ErrorIs(t, err, context.Canceled)

	var out strings.Builder
	assert.Error(t, measure.Serve(strings.NewReader("{"), &out), "a request cut short")
	assert.NoError(t, measure.Serve(strings.NewReader(""), &out))
	_, err = measure.NewPeer(io.Discard, strings.NewReader("")).Bind(t.Context(), good, 1)
	assert.ErrorIs(t, err, io.EOF, "the other process has gone")
	_, err = measure.NewPeer(io.Discard, strings.NewReader("no\n")).Bind(t.Context(), good, 1)
	assert.Error(t, err)
}
