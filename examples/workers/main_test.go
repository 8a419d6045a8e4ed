//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
)

// exampleEnv makes the test binary be the example, so that its workers are
// processes of their own, as in life.
const exampleEnv = "REUSE_EXAMPLE"

func TestMain(m *testing.M) {
	if os.Getenv(exampleEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// example returns the example, to be run. Its workers have its standard error, so
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
	workers     []int
	all, failed int
}

var (
	workerLine = regexp.MustCompile(`(?m)^ *\d+ +([\d,]+) +[\d.]+%$`)
	allLine    = regexp.MustCompile(`(?m)^ +all +([\d,]+)(?:  and ([\d,]+) failed)?$`)
	reasonLine = regexp.MustCompile(`(?m)^ *([\d,]+)  (\D.*)$`)
)

// parseReport reads the report, and checks that its counts add up.
func parseReport(t *testing.T, out string) report {
	t.Helper()
	number := func(s string) int {
		n, err := strconv.Atoi(strings.ReplaceAll(s, ",", ""))
		require.NoError(t, err)
		return n
	}
	var r report
	got, failed := 0, 0
	for _, m := range workerLine.FindAllStringSubmatch(out, -1) {
		r.workers = append(r.workers, number(m[1]))
		got += number(m[1])
	}
	all := allLine.FindStringSubmatch(out)
	require.NotNil(t, all, "no sum in:\n%s", out)
	r.all = number(all[1])
	if all[2] != "" {
		r.failed = number(all[2])
	}
	_, reasons, _ := strings.Cut(out, "because\n")
	for _, m := range reasonLine.FindAllStringSubmatch(reasons, -1) {
		failed += number(m[1])
	}
	assert.Equal(t, r.all, got, out)
	assert.Equal(t, r.failed, failed, out)
	return r
}

// skipUnshared skips a test where workers cannot share a port.
func skipUnshared(t *testing.T) {
	t.Helper()
	if _, _, err := sharing(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	_, spreads, cannot := sharing()
	cmd, stderr := example(t, "-n=3", "-connections=1500")
	out, status := output(t, cmd)
	if cannot != nil {
		assert.Equal(t, 1, status)
		assert.Contains(t, stderr.String(), "cannot share a port here")
		return
	}
	assert.Zero(t, status)
	assert.Empty(t, stderr.String())
	r := parseReport(t, out)
	assert.Equal(t, 1500, r.all+r.failed)
	require.Len(t, r.workers, 3, out)
	assert.NotContains(t, out, "\x1b", "an escape sequence, but there is no terminal")
	if !spreads {
		assert.Contains(t, out, "has no PortLB")
		return
	}
	assert.Contains(t, out, "by a hash")
	for i, n := range r.workers {
		assert.NotZero(t, n, "worker %d got nothing:\n%s", i, out)
	}
}

// A worker must not outlive the one that started it, whatever ends that.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	cmd, _ := example(t, "-connections=1000000")
	lines := startLines(t, cmd)
	waitFor(t, lines, "processes listen")
	require.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait()) // returns: the workers are gone
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
	skipUnshared(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	cmd, stderr := example(t, "-address="+l.Addr().String())
	out, status := output(t, cmd)
	assert.Equal(t, 1, status)
	assert.Empty(t, out)
	assert.Contains(t, stderr.String(), "workers: worker 0 did not start: listen tcp "+l.Addr().String())
	assert.Contains(t, stderr.String(), "-address 127.0.0.1:0")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	cmd, stderr := example(t, "-h")
	out, status := output(t, cmd)
	assert.Zero(t, status)
	assert.Empty(t, stderr.String())
	for _, text := range []string{"go run ./examples/workers", "Linux", "Windows", "-address", "-connections", "-n "} {
		assert.Contains(t, out, text)
	}
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, says string }{
		{"-nonsense", "-nonsense"},
		{"now", `unexpected argument "now"`},
		{"-n=1", "-n 1: give"},
		{"-n=65", "-n 65: give"},
		{"-n=some", "-n"},
		{"-connections=0", "-connections 0: give"},
		{"-connections=1000001", "-connections 1000001: give"},
		{"-address=8080", `-address "8080": give`},
		{"-address=0.0.0.0:0", `-address "0.0.0.0:0": give`},
		{"-address=192.0.2.1:80", `-address "192.0.2.1:80": give`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			cmd, stderr := example(t, strings.Fields(tt.args)...)
			out, status := output(t, cmd)
			assert.Equal(t, 2, status)
			assert.Empty(t, out)
			assert.Contains(t, stderr.String(), tt.says)
			assert.Contains(t, stderr.String(), "For help: go run ./examples/workers -h\n")
		})
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	cmd, _ := example(t, "-connections=10")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, status := output(t, cmd)
	assert.Zero(t, status)
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 40, line)
	}
}

// Whoever answers on the port, it must be one of our workers.
func TestAnsweredByAnother(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":     "",
		"unknown":     "hello",
		"someone's":   fmt.Sprintf(answer, 1, os.Getpid()+1),
		"no full one": fmt.Sprintf(answer, 1, os.Getpid())[:20],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			const connections = 3
			var server sync.WaitGroup
			defer server.Wait()
			server.Go(func() {
				for range connections {
					conn, err := l.Accept()
					if !assert.NoError(t, err) {
						return
					}
					_, err = io.WriteString(conn, text)
					assert.NoError(t, err)
					assert.NoError(t, conn.Close())
				}
			})
			tally := &tally{got: make([]int, 2), failed: map[string]int{}}
			tally.connect(t.Context(), options{address: l.Addr().String(), connections: connections})
			assert.Equal(t, connections, tally.made)
			assert.Equal(t, map[string]int{"answered by something else": connections}, tally.failed)
			assert.Equal(t, []int{0, 0}, tally.got)
		})
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	inner := errors.New("connection reset")
	assert.Equal(t, "connection reset", reason(&net.OpError{Op: "read", Err: os.NewSyscallError("read", inner)}))
	assert.Equal(t, "timeout", reason(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}))
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
		{"nothing", &tally{got: []int{0}}, true},
		{"failed", &tally{made: 2, got: []int{1}, failed: map[string]int{"EOF": 1}}, true},
		{"forgotten", &tally{made: 2, got: []int{1}}, false},
		{"counted twice", &tally{made: 1, got: []int{1, 1}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			require.NoError(t, err)
			defer f.Close()
			s := &show{options: options{workers: 1}, screen: term.New(f), tally: tt.tally}
			if tt.ok {
				assert.NoError(t, s.report())
			} else {
				assert.ErrorContains(t, s.report(), "do not add up")
			}
		})
	}
}
