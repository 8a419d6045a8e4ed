//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main, versionEnv) }

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Example(t, run, args...)
}

// counts are what the example has printed.
type counts struct {
	sent, answered, lost                 int
	keepRequests, keepAnswered, keepLost int
	byVersion, keepByVersion             []int
	reasons                              map[string]int
}

var (
	sumLine     = regexp.MustCompile(`(?m)^([\d,]+) connections?: ([\d,]+) answered, ([\d,]+) lost$`)
	keepLine    = regexp.MustCompile(`(?m)^keep-alive: ([\d,]+) requests?, ([\d,]+) answered, ([\d,]+) lost;`)
	versionLine = regexp.MustCompile(`(?m)^ +(\d+) +\d+ +([\d,]+) +([\d,]+)$`)
	reasonLine  = regexp.MustCompile(`(?m)^ *([\d,]+)  (\D.*)$`)
)

// parseReport reads the report, and checks that its counts add up.
func parseReport(t *testing.T, out string) (c counts) {
	t.Helper()
	numbers := func(line *regexp.Regexp, text string, to ...*int) {
		m := line.FindStringSubmatch(text)
		require.NotNil(t, m, "no %v in:\n%s", line, out)
		for i, n := range to {
			var err error
			*n, err = strconv.Atoi(strings.ReplaceAll(m[i+1], ",", ""))
			require.NoError(t, err)
		}
	}
	numbers(sumLine, out, &c.sent, &c.answered, &c.lost)
	numbers(keepLine, out, &c.keepRequests, &c.keepAnswered, &c.keepLost)
	fresh, keep, _ := strings.Cut(out[sumLine.FindStringIndex(out)[1]:], "\nkeep-alive:")
	tables, reasons, _ := strings.Cut(fresh, "because\n")
	byVersion, keepByVersion, byReason := 0, 0, 0
	for i, line := range versionLine.FindAllString(tables, -1) {
		var version, n, k int
		numbers(versionLine, line, &version, &n, &k)
		assert.Equal(t, i+1, version, "a version is missing in:\n%s", out)
		c.byVersion, c.keepByVersion = append(c.byVersion, n), append(c.keepByVersion, k)
		byVersion += n
		keepByVersion += k
	}
	c.reasons = map[string]int{}
	for _, m := range reasonLine.FindAllStringSubmatch(reasons, -1) {
		var n int
		numbers(reasonLine, m[0], &n)
		c.reasons[m[2]] = n
		byReason += n
	}
	assert.Equal(t, c.sent, c.answered+c.lost, out)
	assert.Equal(t, c.answered, byVersion, out)
	assert.Equal(t, c.lost, byReason, out)
	assert.Equal(t, c.keepRequests, c.keepAnswered+c.keepLost, out)
	assert.Equal(t, c.keepAnswered, keepByVersion, out)
	assert.Equal(t, c.keepLost > 0, strings.Contains(keep, "because"), out)
	return c
}

// possible returns what becomes of a mode on this system.
func possible(t *testing.T, m mode) mode {
	t.Helper()
	switch err := reuse.Port.Supported(); {
	case runtime.GOOS == "linux" || m == gap:
		return m
	case errors.Is(err, errors.ErrUnsupported):
		return gap
	case m == handover: // the group knows
		g, err := group.Config{Socket: reuse.Config{Port: reuse.On}}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer g.Close()
		if err := g.TakeOver(t.Context(), 0); err != nil {
			require.ErrorIs(t, err, errors.ErrUnsupported)
			return naive
		}
	}
	return m
}

// A hand-over loses nothing. Otherwise the losses are what they are, but all are
// told.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode      mode
		network   string
		listeners int
	}{
		{handover, "tcp4", 1},
		{handover, "tcp4", 4},
		{handover, "tcp6", 2},
		{naive, "tcp4", 1},
		{naive, "tcp6", 2},
		{gap, "tcp4", 2},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tt.mode, tt.network, tt.listeners), func(t *testing.T) {
			t.Parallel()
			if tt.network == "tcp6" {
				needIPv6(t)
			}
			out, stderr, status := testproc.Run(t, testproc.Command(t, "-restarts=2", "-duration=50ms", "-clients=4", "-keepalive=3", "-rate=500",
				"-mode="+string(tt.mode), "-network="+tt.network, "-listeners="+strconv.Itoa(tt.listeners)))
			assert.Equal(t, term.OK, status)
			assert.Empty(t, stderr)
			c := parseReport(t, out)
			require.Len(t, c.byVersion, 3, out)
			assert.NotContains(t, c.byVersion, 0, "a version answered nothing:\n%s", out)
			assert.NotZero(t, c.keepAnswered)
			assert.NotContains(t, out, "\x1b", "an escape sequence, but there is no terminal")

			is := possible(t, tt.mode)
			assert.Equal(t, is != tt.mode, strings.Contains(out, "cannot do it without loss"), out)
			switch is {
			case handover:
				assert.Zero(t, c.lost, out)
				assert.Contains(t, out, "version 3 took over, 2 drained")
				assert.Contains(t, out, "\ndrain ")
				assert.Contains(t, out, "Nothing was lost.")
			case naive:
				assert.Contains(t, out, "only share the port")
				assert.Contains(t, out, "version 3 listens, 2 stopped")
			case gap:
				assert.Contains(t, out, "Nothing is shared")
				assert.Contains(t, out, "with 1 listener on")
				assert.Contains(t, out, "version 2 stopped, 3 listens")
			}
		})
	}
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
}

// A version serves until it has answered, however seldom it is asked.
func TestEveryVersionAnswers(t *testing.T) {
	t.Parallel()
	out, _, status := testproc.Run(t, testproc.Command(t, "-restarts=2", "-duration=10ms", "-clients=1", "-rate=5"))
	assert.Equal(t, term.OK, status)
	c := parseReport(t, out)
	assert.Len(t, c.byVersion, 3)
	assert.NotContains(t, c.byVersion, 0, out)
}

func TestJSON(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Run(t, testproc.Command(t, "-json", "-restarts=2", "-duration=50ms", "-clients=4", "-rate=500", "-listeners=3", "-keepalive=1"))
	assert.Equal(t, term.OK, status)
	assert.Contains(t, stderr, "version 1 listens", "for whoever reads along")
	in := json.NewDecoder(strings.NewReader(out))
	in.DisallowUnknownFields()
	var r result
	require.NoError(t, in.Decode(&r), out)
	assert.False(t, in.More(), out)
	is := possible(t, handover)
	assert.Equal(t, is, r.Mode)
	assert.Equal(t, is != handover, r.Cannot != "", r.Cannot)
	assert.Equal(t, []any{"tcp4", 4, 2, 1, false}, []any{r.Network, r.Clients, r.Restarts, r.KeepAlive.Clients, r.Interrupted})
	assert.Equal(t, r.Connections, r.Answered+r.Lost)
	assert.Equal(t, r.KeepAlive.Requests, r.KeepAlive.Answered+r.KeepAlive.Lost)
	require.Len(t, r.Versions, 3)
	for i, v := range r.Versions {
		assert.Equal(t, i+1, v.Version)
		assert.NotZero(t, v.Process)
		assert.NotZero(t, v.Answered)
	}
	assert.Positive(t, r.Quiet.P50)
	assert.GreaterOrEqual(t, r.Quiet.P99, r.Quiet.P50)
	assert.GreaterOrEqual(t, r.Quiet.Max, r.Quiet.P99)
	if is == handover {
		assert.Zero(t, r.Lost, out)
		assert.Empty(t, r.Reasons)
		assert.Equal(t, 3, r.Listeners)
		require.NotNil(t, r.TakeOver)
		assert.Positive(t, r.TakeOver.Median)
		assert.GreaterOrEqual(t, r.TakeOver.Max, r.TakeOver.Median)
		assert.Positive(t, r.Drain.Median)
		assert.Positive(t, r.Versions[2].TakeOver)
		assert.Positive(t, r.Versions[1].Drain)
		assert.Equal(t, []float64{0, 0}, []float64{r.Versions[0].TakeOver, r.Versions[2].Drain})
	} else {
		assert.Nil(t, r.TakeOver)
	}
}

// A server must not outlive the one that started it, whatever ends that.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t, "-duration=1m")
	cmd.Stderr = new(bytes.Buffer) // the servers have it, too, and Wait reads it to its end
	lines := testproc.Begin(t, cmd)
	testproc.ReadTo(t, lines, "version 1 listens")
	require.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait()) // returns: the server is gone
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	out, stderr, status := testproc.Run(t, testproc.Command(t, "-address="+l.Addr().String()))
	assert.Equal(t, term.Failed, status)
	assert.Empty(t, out)
	assert.Contains(t, stderr, "restart: version 1 did not start: listen tcp4 "+l.Addr().String())
	assert.Contains(t, stderr, "without -address the system chooses a port")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	out, stderr, status := example(t, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "restart", out, "address address", "clients number", "duration time", "json", "keepalive number",
		"listeners number", "mode mode", "network network", "rate connections", "restarts number")
	testproc.Lost(t, run, "-h")
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
		{"-listeners=0", "-listeners 0: give"},
		{"-listeners=65", "-listeners 65: give"},
		{"-keepalive=-1", "-keepalive -1: give"},
		{"-keepalive=1001", "-keepalive 1001: give"},
		{"-network=tcp", `-network "tcp": give tcp4 or tcp6`},
		{"-network=", `-network "": give`},
		{"-mode=overlap", `-mode "overlap": give handover, naive or gap`},
		{"-mode=", `-mode "": give`},
		{"-address=[::1]:0", `-address "[::1]:0": give a loopback address of tcp4`},
		{"-network=tcp6 -address=127.0.0.1:0", `-address "127.0.0.1:0": give a loopback address of tcp6`},
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
			out, stderr, status := example(t, strings.Fields(tt.args)...)
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, out)
			assert.Contains(t, stderr, tt.says)
			assert.Contains(t, stderr, "For help: go run ./examples/restart -h\n")
		})
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t, "-restarts=1", "-duration=10ms")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, _, status := testproc.Run(t, cmd)
	assert.Equal(t, term.OK, status)
	testproc.Narrow(t, 40, out)
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
				_, _ = io.WriteString(w, body)
			}))
			defer srv.Close()
			l := newLoad(srv.URL, true, new(atomic.Bool))
			l.run(ctx, time.Millisecond)
			assert.Equal(t, 1, l.sent)
			assert.Equal(t, map[string]int{"answered by something else": 1}, l.lost)
			assert.NoError(t, l.check(1))
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
func TestAddUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		load *load
		ok   bool
	}{
		{"nothing", &load{}, true},
		{"answered", &load{sent: 2, answered: map[int]int{1: 1, 2: 1}, quiet: latency{1: 1}, restart: latency{1: 1}}, true},
		{"lost", &load{sent: 1, lost: map[string]int{"EOF": 1}}, true},
		{"forgotten", &load{sent: 1}, false},
		{"counted twice", &load{sent: 1, lost: map[string]int{"EOF": 1, "timeout": 1}}, false},
		{"answered by no version", &load{sent: 1, answered: map[int]int{3: 1}, quiet: latency{1: 1}}, false},
		{"in no time", &load{sent: 1, answered: map[int]int{1: 1}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.ok {
				assert.NoError(t, tt.load.check(2))
			} else {
				assert.ErrorContains(t, tt.load.check(2), "do not add up")
			}
		})
	}
}

// A hand-over that loses something has failed. In the other modes that is what
// there is to see.
func TestVerdict(t *testing.T) {
	t.Parallel()
	for m, fails := range map[mode]bool{handover: true, naive: false, gap: false} {
		s := &show{options: options{mode: m}, screen: term.New(io.Discard), fresh: &load{}}
		assert.NoError(t, s.verdict(), m)
		s.fresh.lost = map[string]int{"EOF": 1, "timeout": 1}
		if fails {
			assert.EqualError(t, s.verdict(), "2 connections lost in the hand-over")
			assert.ErrorIs(t, s.verdict(), term.ErrNo)
		} else {
			assert.NoError(t, s.verdict(), m)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	l := latency{}
	assert.Zero(t, l.quantile(0.5))
	assert.Zero(t, l.quantile(1))
	for i := range 100 {
		l.add(time.Duration(i+1) * time.Millisecond)
	}
	assert.Equal(t, 100, l.count())
	for q, want := range map[float64]int{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		assert.Equal(t, time.Duration(want)*time.Millisecond, l.quantile(q), q)
	}
}

// The wait before Shutdown is for the connections that are new or active.
func TestBusy(t *testing.T) {
	t.Parallel()
	b := &busy{conns: map[net.Conn]bool{}, less: make(chan struct{}, 1)}
	require.NoError(t, b.wait(t.Context()))
	one, two := net.Pipe()
	b.track(one, http.StateNew)
	b.track(two, http.StateNew)
	b.track(two, http.StateActive)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorContains(t, b.wait(done), "2 connections are not answered")
	b.track(one, http.StateIdle)
	assert.ErrorIs(t, b.wait(done), context.Canceled)
	waited := make(chan error)
	go func() { waited <- b.wait(t.Context()) }()
	b.track(two, http.StateClosed)
	assert.NoError(t, <-waited)
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	testproc.Command(t) // which skips where there are no processes
	testproc.Lost(t, run, "-restarts=1", "-duration=10ms", "-clients=1", "-rate=100")
	testproc.Lost(t, run, "-restarts=1", "-duration=10ms", "-clients=1", "-rate=100", "-json")
}
