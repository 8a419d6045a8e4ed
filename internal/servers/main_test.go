package servers

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// A server is one row of the table in docs/servers.md. It runs in processes of its own,
// which are this program.
type server struct {
	tcp, udp int          // how many sockets
	address  string       // of all; empty: 127.0.0.1:0
	options  reuse.Config // of all
	serve    func(ctx context.Context, p *handover.Process, s sockets) error
}

type sockets struct {
	tcp []net.Listener
	udp []net.PacketConn
}

// listen asks for all sockets of a server. With port 0 those of one kind have the port
// of the first.
func (s server) listen(ctx context.Context, p *handover.Process) (list sockets, err error) {
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	at := address
	for range s.tcp {
		l, err := p.Listen(ctx, s.options, "tcp", at)
		if err != nil {
			return list, err
		}
		list.tcp, at = append(list.tcp, l), l.Addr().String()
	}
	at = address
	for range s.udp {
		c, err := p.ListenPacket(ctx, s.options, "udp", at)
		if err != nil {
			return list, err
		}
		list.udp, at = append(list.udp, c), c.LocalAddr().String()
	}
	return list, nil
}

const (
	serverEnv  = "REUSE_SERVER" // makes this program a server
	nameEnv    = "REUSE_SERVER_NAME"
	addressEnv = "REUSE_SERVER_ADDRESS"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(serverEnv); name != "" {
		if err := run(name); err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintf(os.Stderr, "%s, process %d: %v\n", name, os.Getpid(), err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Without this each process sleeps a second at its end under -race.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 "+os.Getenv("GORACE")))
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // most of a row's time is waiting
		panic(err)
	}
	os.Exit(m.Run())
}

// run is the main function of a server.
func run(name string) error {
	go func() { // ends with the test's process
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s := servers[name]
	if name == "systemd" {
		os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		return serveActivated(ctx, os.Getenv(nameEnv), os.Getenv(addressEnv), hello())
	}
	p, err := handover.Config{Name: os.Getenv(nameEnv)}.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	go func() {
		<-p.Replaced()
		os.Stdout.Close() // tells the test
	}()
	list, err := s.listen(ctx, p)
	if err != nil {
		return err
	}
	return s.serve(ctx, p, list)
}

// A service is the processes of a server that succeed each other.
type service struct {
	t       testing.TB
	server  string
	name    string
	env     []string
	files   []*os.File // of the next process, from descriptor 3
	each    int        // requests of each client between restarts
	current *process
	tcp     string // addresses
	udp     string
}

var services atomic.Int64 // in this process

type process struct {
	*exec.Cmd
	replaced chan struct{} // closed then, or when it has exited
	exited   chan struct{}
	err      error
}

// start starts a service. The first process is this one, so that the port is known
// before a server runs.
func start(t testing.TB, server string, env ...string) *service {
	s := newService(t, server, env...)
	p, err := handover.Config{Name: s.name}.Start(t.Context())
	require.NoError(t, err)
	defer p.Close()
	list, err := servers[server].listen(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, p.Ready(t.Context()))
	for _, l := range list.tcp {
		s.tcp = l.Addr().String()
	}
	for _, c := range list.udp {
		s.udp = c.LocalAddr().String()
		defer c.Close()
	}
	s.current = s.begin()
	await(t, p.Replaced(), "the first process does not take over")
	return s
}

func newService(t testing.TB, server string, env ...string) *service {
	return &service{t: t, server: server, name: fmt.Sprintf("%s-%d-%d", server, os.Getpid(), services.Add(1)), env: env, each: 50}
}

// begin starts a process, which is stopped when the test ends.
func (s *service) begin() *process {
	exe, err := os.Executable()
	require.NoError(s.t, err)
	p := &process{Cmd: exec.Command(exe), replaced: make(chan struct{}), exited: make(chan struct{})}
	p.Env = append(append(os.Environ(), serverEnv+"="+s.server, nameEnv+"="+s.name), s.env...)
	p.Stderr, p.ExtraFiles = os.Stderr, s.files
	_, err = p.StdinPipe()
	require.NoError(s.t, err)
	out, err := p.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, p.Start())
	go func() {
		_, _ = io.Copy(io.Discard, out)
		close(p.replaced)
		p.err = p.Wait()
		close(p.exited)
	}()
	s.t.Cleanup(func() {
		if p.Process.Signal(syscall.SIGTERM) == nil { // it has not exited
			p.mustExit(s.t)
		}
	})
	return p
}

// succeed starts the next process, and returns the previous one when it is replaced.
func (s *service) succeed() (previous *process) {
	s.t.Helper()
	previous, s.current = s.current, s.begin()
	await(s.t, previous.replaced, "the process is not replaced")
	return previous
}

// restart starts the next process and waits until the previous one has exited.
func (s *service) restart() {
	s.t.Helper()
	s.succeed().mustExit(s.t)
}

// mustExit waits until a process has exited with 0, as only one that was replaced does.
func (p *process) mustExit(t testing.TB) {
	t.Helper()
	await(t, p.exited, "the process does not exit")
	require.NoError(t, p.err)
}

func await(t testing.TB, done <-chan struct{}, failure string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal(failure)
	}
}

var restarts = flag.Int("restarts", 20, "of each server")

const (
	patience = 30 * time.Second // how long anything may take before it counts as broken
	clients  = 4
	pause    = time.Millisecond // of a client after a request
)

// A load is clients that send requests, one after the other.
type load struct {
	t              *testing.T
	stopped        atomic.Bool
	requests, lost atomic.Int64
	clients        sync.WaitGroup
}

// startLoad runs clients, each with what a call of client returns.
func startLoad(t *testing.T, client func() (request func() error)) *load {
	l := &load{t: t}
	for range clients {
		request := client()
		l.clients.Go(func() {
			for !l.stopped.Load() {
				l.requests.Add(1)
				if err := request(); err != nil && l.lost.Add(1) <= 10 {
					t.Logf("lost: %v", err)
				}
				time.Sleep(pause)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.clients.Wait()
}

// underLoad restarts a server under load and reports one row of the table.
func underLoad(t *testing.T, s *service, row string, client func() (request func() error)) {
	t.Helper()
	l := startLoad(t, client)
	for range *restarts {
		before := l.requests.Load()
		s.restart()
		for l.requests.Load() < before+int64(s.each)*clients { // so that each process has requests
			time.Sleep(time.Millisecond)
		}
	}
	l.stop()
	t.Logf("| %s | %d | %d | %d |", row, *restarts, l.requests.Load(), l.lost.Load())
	assert.Zero(t, l.lost.Load())
}

// certificate is for all servers; the clients do not check it.
var certificate = sync.OnceValue(func() tls.Certificate {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	return srv.TLS.Certificates[0]
})

func serverTLS(protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: protocols}
}

func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

var errTooLong = errors.New("no answer in time")

// patient returns a context for one request.
func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), patience, errTooLong)
}
