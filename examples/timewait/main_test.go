//go:build !android && !ios

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// TestMain is the example itself in the processes that the tests start.
func TestMain(m *testing.M) {
	if os.Getenv("REUSE_EXAMPLE") == "1" || os.Getenv(asChild) != "" {
		main()
	}
	if os.Getenv("GORACE") == "" { // a process built with -race ends with a second's sleep
		os.Setenv("GORACE", "atexit_sleep_ms=1")
	}
	os.Exit(m.Run())
}

// example runs the example in a process of its own.
func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no processes here")
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "REUSE_EXAMPLE=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
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
	assert.Regexp(t, `(?m)^    tcp  127\.0\.0\.1:\d+ +127\.0\.0\.1:\d+ +TIME_WAIT$`, first)
	assert.Regexp(t, `(?m)^    tcp  127\.0\.0\.1:\d+ +127\.0\.0\.1:\d+ +ESTABLISHED$`, second)
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

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-nonsense"}, {"nonsense"}} {
		stdout, stderr, status := example(t, args...)
		assert.Equal(t, 2, status)
		assert.Empty(t, stdout)
		assert.NotEmpty(t, stderr)
	}
	_, stderr, status := example(t, "-h")
	assert.Equal(t, 0, status)
	assert.Contains(t, stderr, "TIME_WAIT for 30 to 240 s")
	assert.Contains(t, stderr, "-json")
}
