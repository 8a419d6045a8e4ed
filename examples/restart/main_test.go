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
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main, serverEnv) }

// possible returns what becomes of a mode on this system.
func possible(t *testing.T, m mode) mode {
	t.Helper()
	p, err := handover.Config{Name: fmt.Sprint(t.Name()[:4], os.Getpid())}.Start(t.Context())
	if err == nil {
		p.Close()
	}
	if m == handOver && errors.Is(err, errors.ErrUnsupported) {
		m = naive
	}
	if m == naive && errors.Is(reuse.Port.Supported(), errors.ErrUnsupported) {
		m = gap
	}
	return m
}

// A hand-over loses nothing. The other modes lose what they do, and all is counted.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode    mode
		network string
	}{
		{handOver, "tcp4"}, {handOver, "tcp"}, {handOver, "tcp6"}, {handOver, "udp"},
		{naive, "tcp4"}, {naive, "udp"}, {gap, "tcp4"}, {gap, "udp"},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.mode, tt.network), func(t *testing.T) {
			t.Parallel()
			if tt.network == "tcp6" {
				l, err := net.Listen(tt.network, addresses[tt.network])
				if err != nil {
					t.Skip("no IPv6 here: ", err)
				}
				l.Close()
			}
			out, stderr, status := testproc.Run(t, testproc.Command(t, "-json", "-restarts=2", "-clients=4", "-mode="+string(tt.mode), "-network="+tt.network))
			assert.Equal(t, term.OK, status, stderr)
			assert.Contains(t, stderr, "version 3 started, 2 exited in ")
			assert.NotContains(t, stderr, "\x1b", "an escape sequence, but there is no terminal")
			in := json.NewDecoder(strings.NewReader(out))
			in.DisallowUnknownFields()
			var r show
			require.NoError(t, in.Decode(&r), out)
			assert.Equal(t, []any{possible(t, tt.mode), tt.network, 4, 2}, []any{r.Mode, r.Network, r.Clients, r.Restarts})
			assert.Equal(t, r.Mode != tt.mode, r.Cannot != "", r.Cannot)
			assert.Equal(t, r.Mode != tt.mode, strings.Contains(stderr, "instead"), stderr)
			for _, l := range []*load{&r.Fresh, &r.Kept} {
				addsUp(t, l)
				assert.Len(t, l.ByVersion, 3, "a version answered nothing")
				assert.Positive(t, l.Slowest)
				if r.Mode == handOver {
					assert.Zero(t, l.Lost, l.Reasons)
				}
			}
		})
	}
}

func addsUp(t *testing.T, l *load) {
	t.Helper()
	answered, lost := 0, 0
	for _, n := range l.ByVersion {
		answered += n
	}
	for _, n := range l.Reasons {
		lost += n
	}
	assert.Equal(t, []int{l.Sent, l.Answered, l.Lost}, []int{answered + lost, answered, lost})
}

// A reader at a terminal sees what was lost, and why, in its width.
func TestPrint(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t, "-restarts=1", "-clients=2")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Narrow(t, 40, out)
	for _, text := range []string{"version 2 started, 1 exited in ", "sent  answered  lost", "\nfresh ", "\nkept ", " ms\n"} {
		assert.Contains(t, out, text)
	}

	var printed bytes.Buffer
	s := show{Mode: gap, screen: term.New(&printed), stdout: &printed}
	s.Kept.count("web", "", io.EOF, 0)
	require.NoError(t, s.report())
	assert.Contains(t, printed.String(), "\nkept         1         0     1     0 ms\nkept, lost: 1 EOF\n\nBetween two versions nothing listened.\n")
}

// A server does not outlive the process that started it, whatever ends that.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Stderr = new(bytes.Buffer) // the servers also have it, and Wait reads it to its end
	lines := testproc.Begin(t, cmd)
	testproc.ReadTo(t, lines, "version 2 started")
	require.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait()) // returns: the server has exited
}

func TestHelp(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Example(t, run, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "restart", out, "clients number", "json", "mode mode", "network network", "restarts number")
	testproc.Lost(t, run, "-h")
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, says string }{
		{"-nonsense", "-nonsense"},
		{"now", `unexpected argument "now"`},
		{"-restarts=0", "-restarts 0: give"},
		{"-restarts=1001", "-restarts 1001: give"},
		{"-clients=1", "-clients 1: give"},
		{"-clients=1001", "-clients 1001: give"},
		{"-network=unix", `-network "unix": give tcp, tcp4, tcp6 or udp`},
		{"-network=", `-network "": give`},
		{"-mode=overlap", `-mode "overlap": give handover, naive or gap`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			out, stderr, status := testproc.Example(t, run, strings.Fields(tt.args)...)
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, out)
			assert.Contains(t, stderr, tt.says)
			assert.Contains(t, stderr, "For help: go run ./examples/restart -h\n")
		})
	}
}

// A fresh client has a socket for each request, a kept one has one for all. Only
// an answer of a version of this server counts.
func TestClients(t *testing.T) {
	t.Parallel()
	var clients sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clients.Store(r.RemoteAddr, true)
		_, _ = io.WriteString(w, "restart-7 version 1")
	}))
	defer srv.Close()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer conn.Close()
	go func() {
		for buf := make([]byte, 100); ; {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			clients.Store(from.String(), true)
			_, _ = conn.WriteTo([]byte("restart-7 version 1"), from)
		}
	}()
	for network, address := range map[string]net.Addr{"tcp4": srv.Listener.Addr(), "udp": conn.LocalAddr()} {
		for keep, want := range map[bool]int{false: 3, true: 1} {
			clients.Clear()
			ask := newClient(network, address.String(), keep)
			var l load
			for _, service := range []string{"restart-7", "restart-7", "restart-8"} {
				answer, err := ask()
				l.count(service, answer, err, 1)
			}
			sockets := 0
			clients.Range(func(any, any) bool { sockets++; return true })
			assert.Equal(t, want, sockets, "%s %v", network, keep)
			assert.Equal(t, map[int]int{1: 2}, l.ByVersion)
			assert.Equal(t, map[string]int{"answered by another server": 1}, l.Reasons)
			addsUp(t, &l)
		}
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	inner := errors.New("connection reset")
	assert.Equal(t, "connection reset", reason(&url.Error{Op: "Get", URL: "http://127.0.0.1:1", Err: &net.OpError{Op: "read", Err: os.NewSyscallError("read", inner)}}))
	assert.Equal(t, "timeout", reason(&url.Error{Op: "Get", URL: "http://127.0.0.1:1", Err: context.DeadlineExceeded}))
	assert.Equal(t, "EOF", reason(io.EOF))
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	testproc.Command(t) // which skips where there are no processes
	testproc.Lost(t, run, "-restarts=1", "-clients=2")
	testproc.Lost(t, run, "-restarts=1", "-clients=2", "-json")
}
