//go:build !android && !ios

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/group"
)

// versionEnv tells a process that it is a server, and which version.
const versionEnv = "REUSE_RESTART_VERSION"

// answer is what the server says: its version, and the process that started it,
// as somebody else may run this example on the same port.
const answer = "version %d, started by process %d"

// patience is how long anything may take that should take no time: a start,
// a stop, a request.
const patience = 5 * time.Second

// The server

// serve is one version of the server. It says that it listens, answers until
// a line or the end comes from standard input, and stops. The line is that
// a successor has taken over.
func serve(version int, o options) error {
	// A terminal sends Ctrl-C to all processes. Only the parent shall act on it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)

	parent := os.Getppid()
	busy := &busy{conns: map[net.Conn]bool{}, less: make(chan struct{}, 1)}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if busy.leaving.Load() { // who keeps a connection shall take a new one
				w.Header().Set("Connection", "close")
			}
			fmt.Fprintf(w, answer, version, parent)
		}),
		ReadHeaderTimeout: patience,
		ConnState:         busy.track,
	}
	if o.mode == handover {
		return serveGroup(srv, busy, o)
	}
	return servePlain(srv, o)
}

// serveGroup takes the address over and hands it on.
func serveGroup(srv *http.Server, busy *busy, o options) error {
	starting, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// Port is good for one version after the other on every system that can hand
	// over; PortLB, which would be the default, not on the BSDs.
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: o.listeners}.Listen(starting, o.network, o.address)
	if err != nil {
		return say(report{Err: err})
	}
	defer g.Close()
	served := make(chan error, 1)
	go func() { served <- g.Serve(srv.Serve) }()

	begin := time.Now()
	if err := g.TakeOver(starting, 0); err != nil {
		return say(report{Err: err})
	}
	if err := say(report{Address: g.Addr().String(), Took: time.Since(begin)}); err != nil {
		return err
	}

	replaced := toldToStop()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !replaced { // nobody serves from here on
		return say(report{Err: errors.Join(g.Close(), <-served, srv.Shutdown(ctx))})
	}
	begin = time.Now()
	busy.leaving.Store(true)
	err = errors.Join(
		g.Drain(ctx),   // what is queued is accepted, and the listeners close
		<-served,       // now every connection is known to busy
		busy.wait(ctx)) // and is answered; Shutdown would drop requests that it has not begun to
	took := time.Since(begin)
	return say(report{Took: took, Err: errors.Join(err, srv.Shutdown(ctx))})
}

// servePlain does without package group, and shuts down as net/http advises.
func servePlain(srv *http.Server, o options) error {
	listen := reuse.Config{Port: reuse.On}.Listen
	if o.mode == gap {
		listen, o.listeners = reuse.Config{}.Listen, 1
	}
	served := make(chan error, o.listeners)
	for range o.listeners {
		l, err := listen(context.Background(), o.network, o.address)
		if err != nil {
			return say(report{Err: err})
		}
		o.address = l.Addr().String() // with the port, for the others
		go func() { served <- srv.Serve(l) }()
	}
	if err := say(report{Address: o.address}); err != nil {
		return err
	}

	toldToStop()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := srv.Shutdown(ctx)
	for range o.listeners {
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return say(report{Err: err})
}

// toldToStop waits until the parent writes that a successor has taken over, or
// closes the pipe, or is gone.
func toldToStop() (replaced bool) {
	n, _ := os.Stdin.Read(make([]byte, 1))
	return n > 0
}

// busy knows the connections that net/http has begun and not finished.
type busy struct {
	leaving atomic.Bool // the process shall end

	mu    sync.Mutex
	conns map[net.Conn]bool
	less  chan struct{}
}

// track is a hook of http.Server. It has seen a connection before Accept is called
// for the next.
func (b *busy) track(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state == http.StateNew || state == http.StateActive {
		b.conns[c] = true
		return
	}
	delete(b.conns, c)
	select {
	case b.less <- struct{}{}:
	default:
	}
}

// wait returns when no connection is StateNew or StateActive.
func (b *busy) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		n := len(b.conns)
		b.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-b.less:
		case <-ctx.Done():
			return fmt.Errorf("%d connections are not answered: %w", n, ctx.Err())
		}
	}
}

// A report is what a server says to its parent: when it listens, and when it has
// stopped.
type report struct {
	Address string
	Took    time.Duration // to take over, or to drain
	Err     error         `json:"-"`

	Error       string // for Err, which JSON cannot carry
	Unsupported bool   // it is errors.ErrUnsupported
}

func say(r report) error {
	if r.Err != nil {
		r.Error = r.Err.Error()
		r.Unsupported = errors.Is(r.Err, errors.ErrUnsupported)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// The server's process

// A process runs one version of the server.
type process struct {
	version int
	address string
	took    time.Duration // to take over
	drained time.Duration
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  *json.Decoder
	stopped bool
}

// start starts this program as a server and returns when it listens, and has taken
// over. It heeds the end of ctx only if that fails.
func start(ctx context.Context, version int, o options) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "-address", o.address, "-network", o.network, "-mode", string(o.mode), "-listeners", strconv.Itoa(o.listeners))
	cmd.Env = append(os.Environ(), versionEnv+"="+strconv.Itoa(version))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{version: version, cmd: cmd, stdin: stdin, stdout: json.NewDecoder(stdout)}
	r, heard := p.hear()
	if heard == nil && r.Err == nil {
		p.address, p.took = r.Address, r.Took
		return p, nil
	}
	p.stopped = true
	stdin.Close()
	err = errors.Join(heard, r.Err, p.wait())
	if r.Err != nil { // that is why it failed
		return nil, fmt.Errorf("version %d did not start: %w", version, r.Err)
	}
	select { // it is Ctrl-C if that came before the server could take care
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Second):
		return nil, fmt.Errorf("version %d did not start: %w", version, err)
	}
}

// hear waits for what the server says.
func (p *process) hear() (r report, err error) {
	late := p.killAfter(2 * patience)
	defer late.Stop()
	if err := p.stdout.Decode(&r); err != nil {
		return r, fmt.Errorf("version %d said nothing: %w", p.version, err)
	}
	if r.Error != "" {
		r.Err = &serverError{r.Error, r.Unsupported}
	}
	return r, nil
}

// A serverError is an error of another process.
type serverError struct {
	text        string
	unsupported bool
}

func (e *serverError) Error() string { return e.text }

func (e *serverError) Is(target error) bool { return e.unsupported && target == errors.ErrUnsupported }

// handOver has the server drain and stop, as another has taken over.
func (p *process) handOver() error {
	_, err := p.stdin.Write([]byte{'\n'})
	return errors.Join(err, p.stop())
}

// stop has the server stop and waits for the end of its process.
func (p *process) stop() error {
	if p.stopped {
		return nil
	}
	p.stopped = true
	p.stdin.Close()
	r, err := p.hear()
	p.drained = r.Took
	if err = errors.Join(err, r.Err, p.wait()); err != nil {
		return fmt.Errorf("version %d: %w", p.version, err)
	}
	return nil
}

func (p *process) wait() error {
	late := p.killAfter(patience)
	defer late.Stop()
	return p.cmd.Wait()
}

func (p *process) killAfter(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() {
		_ = p.cmd.Process.Kill() // fails only if it has ended by itself
	})
}
