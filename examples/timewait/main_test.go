//go:build !android && !ios

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main, asChild) }

// example runs the example, and skips the test where it cannot run.
func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Run(t, testproc.Command(t, args...))
}

// both tells whether two listeners have an option that Linux lets them share.
func both(before, after string) bool {
	sets := func(name string) string {
		switch name {
		case "Addr On", "Exclusive On": // which keeps what package net sets
			return "SO_REUSEADDR"
		case "Port On":
			return "SO_REUSEPORT"
		}
		return ""
	}
	return sets(before) != "" && sets(before) == sets(after)
}

func TestJSON(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := example(t, "-json")
	require.Equal(t, 0, status, stderr)
	assert.Empty(t, stderr)
	seen := map[string]int{}
	lines := json.NewDecoder(strings.NewReader(stdout))
	lines.DisallowUnknownFields()
	for {
		var a attempt
		err := lines.Decode(&a)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		seen[a.Scenario]++
		assert.Equal(t, runtime.GOOS, a.OS)
		switch a.Outcome {
		case listens:
			assert.Empty(t, a.Error)
		case unsupported:
			assert.NotEmpty(t, a.Error)
			assert.True(t, a.Old == "Port On" && reuse.Port.Supported() != nil || a.New == "Port On" && reuse.Port.Supported() != nil ||
				a.Old == "Exclusive On" || a.New == "Exclusive On", "%+v", a)
		default:
			assert.Equal(t, refused, a.Outcome)
			assert.Contains(t, a.Error, "bind: ")
		}
		if runtime.GOOS != "linux" {
			continue
		}
		want := refused
		if both(a.Old, a.New) {
			want = listens
		}
		assert.Equal(t, want, a.Outcome, "%+v", a)
		state := map[string]string{"closed": "TIME_WAIT", "child": "ESTABLISHED"}[a.Scenario]
		if assert.Len(t, a.Left, 1) {
			assert.Equal(t, state, a.Left[0].State)
			assert.True(t, a.Left[0].Local.Addr().IsLoopback())
			assert.NotEqual(t, a.Left[0].Local.Port(), a.Left[0].Remote.Port())
		}
	}
	assert.Equal(t, map[string]int{"closed": 16, "child": 16}, seen)
}

func TestTable(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := example(t)
	require.Equal(t, 0, status, stderr)
	assert.Empty(t, stderr)
	for _, line := range strings.Split(stdout, "\n") {
		assert.LessOrEqual(t, len(line), 80)
		assert.Equal(t, strings.TrimRight(line, " "), line)
	}
	if runtime.GOOS != "linux" {
		return
	}
	first, second, found := strings.Cut(stdout, "2. The old server left a connection to a child")
	require.True(t, found)
	assert.Regexp(t, `(?m)^    tcp 127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+ TIME_WAIT$`, first)
	assert.Regexp(t, `(?m)^    tcp 127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+ ESTABLISHED$`, second)
	for _, part := range []string{first, second} {
		assert.Contains(t, part, `
  The old one:    The new one:
                  Addr Off      Addr On       Port On       Exclusive On
  Addr Off        refused       refused       refused       refused
  Addr On         refused       listens       refused       listens
  Port On         refused       refused       listens       refused
  Exclusive On    refused       listens       refused       listens

refused: bind: address already in use.
What the old listener left keeps its options, so both need Addr On, or both
Port On.`)
	}
	assert.Contains(t, second, "The connection was served before and after.")
}

// The rules know what becomes of a bind beside what is left.
func TestRules(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("this may be Wine, which has rules of its own")
	}
	stdout, stderr, status := example(t, "-json")
	require.Equal(t, 0, status, stderr)
	s, err := semantics.Find(runtime.GOOS)
	require.NoError(t, err)
	options := map[string]semantics.Options{}
	for _, c := range configs {
		l, err := listen(c.config, "127.0.0.1:0")
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		require.NoError(t, err)
		got, err := reuse.Inspect(l.(*net.TCPListener))
		require.NoError(t, errors.Join(err, l.Close()))
		for o, setting := range map[semantics.Option]reuse.Setting{semantics.Addr: got.Addr, semantics.Port: got.Port, semantics.Excl: got.Exclusive} {
			if setting == reuse.On {
				options[c.name] |= semantics.Opts(o)
			}
		}
	}
	asked := 0
	lines := json.NewDecoder(strings.NewReader(stdout))
	for lines.More() {
		var a attempt
		require.NoError(t, lines.Decode(&a))
		if a.Outcome == unsupported {
			continue
		}
		b := semantics.Binding{Proto: semantics.TCP, Addr: netip.MustParseAddr("127.0.0.1"), User: os.Geteuid(), Port: 50000}
		before, after := b, b
		before.Options, after.Options = options[a.Old], options[a.New]
		after.State = semantics.Listening
		before.State = map[string]semantics.State{"closed": semantics.TimeWait, "child": semantics.Established}[a.Scenario]
		answer := s.Second(before, after)
		if answer.Known.How <= semantics.Unsure {
			continue
		}
		asked++
		if a.Scenario == "closed" && localNote() != "" {
			assert.Equal(t, listens, a.Outcome, "%+v", a)
			continue
		}
		assert.Equal(t, answer.OK(), a.Outcome == listens, "%+v: %+v", a, answer)
	}
	if runtime.GOOS == "linux" {
		assert.Equal(t, 32, asked)
	}
}

// What the table teaches is read from it, not from the system's name.
func TestLesson(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ listens, want string }{
		{"Addr Off,Addr Off", "It needs no option here to listen again."},
		{"Addr Off,Addr On", "Addr On is enough on the new listener."},
		{"Addr On,Addr On", "What the old listener left keeps its options, so both need Addr On."},
		{"Port On,Port On", "Addr On does not help here."},
	} {
		before, after, _ := strings.Cut(test.listens, ",")
		assert.Equal(t, test.want, table{{Old: before, New: after, Outcome: listens}}.lesson())
	}
}

// A narrow screen gets the same in lines.
func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	stdout, stderr, status := testproc.Run(t, cmd)
	require.Equal(t, term.OK, status, stderr)
	testproc.Narrow(t, 40, stdout)
	assert.Equal(t, 2*len(configs), strings.Count(stdout, "\n  After "), stdout)
	if runtime.GOOS == "linux" {
		assert.Equal(t, 2, strings.Count(stdout, "\n  After Addr On:\n"+
			"    Addr Off      refused\n    Addr On       listens\n    Port On       refused\n    Exclusive On  listens\n"), stdout)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-nonsense"}, {"nonsense"}} {
		stdout, stderr, status := testproc.Example(t, run, args...)
		assert.Equal(t, term.Failed, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "nonsense")
		assert.Contains(t, stderr, "\nFor help: go run ./examples/timewait -h\n")
	}
	stdout, stderr, status := testproc.Example(t, run, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "timewait", stdout, "json")
	testproc.Lost(t, run, "-h")
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	testproc.Command(t) // which skips where the example cannot run
	testproc.Lost(t, run)
	testproc.Lost(t, run, "-json")
}
