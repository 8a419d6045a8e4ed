//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main, workerEnv) }

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Example(t, run, args...)
}

// needProcesses skips a test where the example has none.
func needProcesses(t *testing.T) { testproc.Command(t) }

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
	needProcesses(t)
	out, stderr, status := example(t, "-n=3", "-connections=1500")
	if cannot != nil {
		assert.Equal(t, term.Failed, status)
		assert.Contains(t, stderr, "cannot share a port here")
		return
	}
	r := parseReport(t, out)
	if r.failed > 0 {
		assert.Equal(t, term.No, status)
		assert.Equal(t, fmt.Sprintf("workers: %s failed\n", term.Count(r.failed, "connection")), stderr)
	} else {
		assert.Equal(t, term.OK, status)
		assert.Empty(t, stderr)
	}
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
	cmd := testproc.Command(t, "-connections=1000000")
	cmd.Stderr = new(bytes.Buffer) // the workers have it, too, and Wait reads it to its end
	lines := testproc.Begin(t, cmd)
	testproc.ReadTo(t, lines, "processes listen")
	require.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait()) // returns: the workers are gone
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	out, stderr, status := example(t, "-address="+l.Addr().String())
	assert.Equal(t, term.Failed, status)
	assert.Empty(t, out)
	assert.Contains(t, stderr, "workers: worker 0 did not start: listen tcp "+l.Addr().String())
	assert.Contains(t, stderr, "-address 127.0.0.1:0")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	out, stderr, status := example(t, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "workers", out, "address address", "connections number", "json", "n number")
	testproc.Lost(t, run, "-h")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	out, stderr, status := example(t, "-json", "-n=3", "-connections=600")
	assert.Contains(t, stderr, "3 processes listen on 127.0.0.1:")
	var r result
	in := json.NewDecoder(strings.NewReader(out))
	in.DisallowUnknownFields()
	require.NoError(t, in.Decode(&r), out)
	assert.False(t, in.More(), out)
	assert.Equal(t, r.Failed > 0, status == term.No, status)
	assert.Equal(t, []int{600, 600}, []int{r.Connections, r.Got + r.Failed})
	assert.False(t, r.Interrupted)
	share, spreads, err := sharing()
	require.NoError(t, err)
	assert.Equal(t, spreads, r.Spreads)
	assert.Equal(t, share.String(), r.Config)
	assert.Regexp(t, `^127\.0\.0\.1:\d+$`, r.Address)
	got := 0
	require.Len(t, r.Workers, 3)
	for _, w := range r.Workers {
		assert.NotZero(t, w.Process)
		got += w.Got
	}
	assert.Equal(t, r.Got, got)
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
			out, stderr, status := example(t, strings.Fields(tt.args)...)
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, out)
			assert.Contains(t, stderr, tt.says)
			assert.Contains(t, stderr, "For help: go run ./examples/workers -h\n")
		})
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	cmd := testproc.Command(t, "-connections=10")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, _, status := testproc.Run(t, cmd)
	assert.Equal(t, term.OK, status)
	testproc.Narrow(t, 40, out)
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
			s := &show{options: options{workers: 1}, screen: term.New(io.Discard), tally: tt.tally}
			err := s.report(io.Discard, false)
			if tt.ok {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, "do not add up")
			}
		})
	}
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	needProcesses(t)
	testproc.Lost(t, run, "-connections=10")
	testproc.Lost(t, run, "-connections=10", "-json")
}
