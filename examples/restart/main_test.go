//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
)

// exampleEnv makes the test binary be the example, so that its servers are
// processes of their own, as in life.
const exampleEnv = "REUSE_EXAMPLE"

func TestMain(m *testing.M) {
	if os.Getenv(exampleEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// example returns the example, to be run. Its servers have its standard error, so
// that Wait, which reads that to the end, waits for their end, too.
func example(t *testing.T, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no processes on " + runtime.GOOS)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	stderr = new(bytes.Buffer)
	cmd = exec.CommandContext(t.Context(), exe, args...)
	// Without GORACE every process sleeps a second at its end under -race.
	cmd.Env = append(os.Environ(), exampleEnv+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stderr = stderr
	return cmd, stderr
}

// output runs the example and returns what it prints and its exit status.
func output(t *testing.T, cmd *exec.Cmd) (stdout string, status int) {
	t.Helper()
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// A report is what the example has counted.
type report struct {
	sent, answered, lost int
	byVersion            []int
	reasons              map[string]int
}

var (
	sumLine     = regexp.MustCompile(`(?m)^([\d,]+) requests?: ([\d,]+) answered, ([\d,]+) lost$`)
	versionLine = regexp.MustCompile(`(?m)^ +(\d+) +\d+ +([\d,]+)$`)
	reasonLine  = regexp.MustCompile(`(?m)^ *([\d,]+)  (\D.*)$`)
)

// parseReport reads the report, and checks that its counts add up.
func parseReport(t *testing.T, out string) report {
	t.Helper()
	number := func(s string) int {
		n, err := strconv.Atoi(strings.ReplaceAll(s, ",", ""))
		require.NoError(t, err)
		return n
	}
	sum := sumLine.FindStringSubmatch(out)
	require.NotNil(t, sum, "no sum in:\n%s", out)
	r := report{sent: number(sum[1]), answered: number(sum[2]), lost: number(sum[3]), reasons: map[string]int{}}
	tables, reasons, _ := strings.Cut(out[strings.Index(out, sum[0])+len(sum[0]):], "because\n")
	byVersion, byReason := 0, 0
	for i, m := range versionLine.FindAllStringSubmatch(tables, -1) {
		assert.Equal(t, i+1, number(m[1]), "a version is missing in:\n%s", out)
		r.byVersion = append(r.byVersion, number(m[2]))
		byVersion += number(m[2])
	}
	for _, m := range reasonLine.FindAllStringSubmatch(reasons, -1) {
		r.reasons[m[2]] = number(m[1])
		byReason += number(m[1])
	}
	assert.Equal(t, r.sent, r.answered+r.lost, out)
	assert.Equal(t, r.answered, byVersion, out)
	assert.Equal(t, r.lost, byReason, out)
	return r
}

// The losses are what they are, but all are told.
func TestRestart(t *testing.T) {
	t.Parallel()
	_, cannot := sharing()
	for name, overlap := range map[string]bool{"beside the old one": true, "after the old one": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, stderr := example(t, "-restarts=2", "-duration=50ms", "-clients=4", "-rate=1000", "-overlap="+strconv.FormatBool(overlap))
			out, status := output(t, cmd)
			assert.Zero(t, status)
			assert.Empty(t, stderr.String())
			r := parseReport(t, out)
			require.Len(t, r.byVersion, 3, out)
			assert.NotContains(t, r.byVersion, 0, "a version answered nothing:\n%s", out)
			switch {
			case cannot != nil:
				assert.Contains(t, out, "cannot share a port")
				assert.Contains(t, out, "version 2 stopped, 3 listens")
			case !overlap:
				assert.Contains(t, out, "Nothing is shared")
				assert.Contains(t, out, "version 2 stopped, 3 listens")
			default:
				assert.Contains(t, out, "version 3 listens, 2 stopped")
			}
			assert.NotContains(t, out, "\x1b", "an escape sequence, but there is no terminal")
		})
	}
}

// A version serves until it has answered, however seldom it is asked.
func TestEveryVersionAnswers(t *testing.T) {
	t.Parallel()
	cmd, _ := example(t, "-restarts=2", "-duration=10ms", "-clients=1", "-rate=5")
	out, status := output(t, cmd)
	assert.Zero(t, status)
	r := parseReport(t, out)
	assert.Len(t, r.byVersion, 3)
	assert.NotContains(t, r.byVersion, 0, out)
}

// A server must not outlive the one that started it, whatever ends that.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	cmd, _ := example(t, "-duration=1m")
	lines := startLines(t, cmd)
	waitFor(t, lines, "version 1 listens")
	require.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait()) // returns: the server is gone
}

// startLines starts the example and returns what will read its output.
func startLines(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return bufio.NewReader(out)
}

// waitFor reads to the line that contains text, and returns all of it.
func waitFor(t *testing.T, out *bufio.Reader, text string) (read string) {
	t.Helper()
	for !strings.Contains(read, text) {
		line, err := out.ReadString('\n')
		require.NoError(t, err, "no %q in:\n%s", text, read)
		read += line
	}
	return read
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	cmd, stderr := example(t, "-address="+l.Addr().String())
	out, status := output(t, cmd)
	assert.Equal(t, 1, status)
	assert.Empty(t, out)
	assert.Contains(t, stderr.String(), "restart: version 1 did not start: listen tcp "+l.Addr().String())
	assert.Contains(t, stderr.String(), "-address 127.0.0.1:0")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	cmd, stderr := example(t, "-h")
	out, status := output(t, cmd)
	assert.Zero(t, status)
	assert.Empty(t, stderr.String())
	for _, text := range []string{"go run ./examples/restart", "Linux", "Windows", "-address", "-clients", "-duration", "-overlap", "-rate", "-restarts"} {
		assert.Contains(t, out, text)
	}
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, says string }{
		{"-nonsense", "-nonsense"},
		{"now", `unexpected argument "now"`},
		{"-restarts=0", "-restarts 0: give"},
		{"-restarts=51", "-restarts 51: give"},
		{"-restarts=many", "-restarts"},
		{"-clients=0", "-clients 0: give"},
		{"-clients=1001", "-clients 1001: give"},
		{"-clients=8 -rate=7", "-rate 7: give a number from 8"},
		{"-rate=20001", "-rate 20001: give"},
		{"-duration=9ms", "-duration 9ms: give"},
		{"-duration=2m", "-duration 2m0s: give"},
		{"-address=8080", `-address "8080": give`},
		{"-address=localhost:80", `-address "localhost:80": give`},
		{"-address=127.0.0.1:65536", `-address "127.0.0.1:65536": give`},
		{"-address=0.0.0.0:0", `-address "0.0.0.0:0": give`},
		{"-address=[::]:0", `-address "[::]:0": give`},
		{"-address=192.0.2.1:80", `-address "192.0.2.1:80": give`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			cmd, stderr := example(t, strings.Fields(tt.args)...)
			out, status := output(t, cmd)
			assert.Equal(t, 2, status)
			assert.Empty(t, out)
			assert.Contains(t, stderr.String(), tt.says)
			assert.Contains(t, stderr.String(), "For help: go run ./examples/restart -h\n")
		})
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd, _ := example(t, "-restarts=1", "-duration=10ms")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, status := output(t, cmd)
	assert.Zero(t, status)
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 40, line)
	}
}

// Whoever answers on the port, it must be one of our versions.
func TestAnsweredByAnother(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"unknown":     "hello",
		"someone's":   fmt.Sprintf(answer, 1, os.Getpid()+1),
		"no full one": fmt.Sprintf(answer, 1, os.Getpid())[:20],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				cancel() // one is enough
				io.WriteString(w, body)
			}))
			defer srv.Close()
			tally := &tally{lost: map[string]int{}}
			tally.load(ctx, srv.Client(), srv.URL, time.Millisecond)
			assert.Equal(t, 1, tally.sent)
			assert.Equal(t, map[string]int{"answered by something else": 1}, tally.lost)
		})
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	inner := errors.New("connection reset")
	assert.Equal(t, "connection reset", reason(&url.Error{Op: "Get", URL: "http://127.0.0.1:1", Err: &net.OpError{Op: "read", Err: os.NewSyscallError("read", inner)}}))
	assert.Equal(t, "timeout", reason(&url.Error{Op: "Get", URL: "http://127.0.0.1:1", Err: context.DeadlineExceeded}))
	assert.Equal(t, "EOF", reason(io.EOF))
}

// Counts that do not add up are an error.
func TestReportAddsUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		tally *tally
		ok    bool
	}{
		{"nothing", &tally{}, true},
		{"lost", &tally{sent: 1, lost: map[string]int{"EOF": 1}}, true},
		{"forgotten", &tally{sent: 1}, false},
		{"counted twice", &tally{sent: 1, lost: map[string]int{"EOF": 1, "timeout": 1}}, false},
		{"answered by no version", &tally{sent: 1, answered: map[int]int{1: 1}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			require.NoError(t, err)
			defer f.Close()
			s := &show{screen: term.New(f), tally: tt.tally}
			if tt.ok {
				assert.NoError(t, s.report())
			} else {
				assert.ErrorContains(t, s.report(), "do not add up")
			}
		})
	}
}
