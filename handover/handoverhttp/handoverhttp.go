// Package handoverhttp runs a net/http server that the next process of the same
// service can succeed without losing a request.
//
//	srv := handoverhttp.Server{HTTP: &http.Server{Addr: ":8080", Handler: mux}, Name: "web"}
//	if err := srv.Run(ctx); err != nil { // start it again: the new process serves, the old one finishes
//		log.Fatal(err)
//	}
//
// Package [example.com/reuse/handover] has the promises and the systems.
package handoverhttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// A Server is an [http.Server] with a Name by which the next process finds it.
type Server struct {
	// HTTP has Addr, Handler, TLSConfig and so on, as for ListenAndServe. Run
	// changes Handler and ConnState, and calls the ones that were there.
	HTTP *http.Server

	// Name is the service, as in [handover.Config]. A server with an empty Name stops
	// gracefully and cannot be succeeded, on every system.
	Name string

	// Socket has the options of the listener.
	Socket reuse.Config

	// Grace is how long connections may take to finish when the server exits. Zero
	// means 30 seconds.
	Grace time.Duration

	// OnReady is called when this process has become current, for example to tell
	// a service manager. Nothing accepts until it returns. OnReady may be nil.
	OnReady func(p *handover.Process, l net.Listener)
}

// Run listens on HTTP.Addr, takes over from the running process of this Name, if there
// is one, and serves. With certificates in HTTP.TLSConfig it serves TLS. If this process
// fails before it is current, the running one serves on.
//
// When a successor is ready, or ctx ends, Run finishes as [Serve] does. It returns nil
// if this process was current and all requests were answered. The error wraps ctx's if
// that ended before this process was current, and [context.DeadlineExceeded] if Grace
// ended before the requests. After the latter, exit with 0 under a service manager that
// restarts what fails: it would start this version again, which would take over.
func (s *Server) Run(ctx context.Context) error {
	p, err := handover.Config{Name: s.Name}.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	address := s.HTTP.Addr
	if address == "" {
		address = ":http"
		if hasCertificate(s.HTTP) {
			address = ":https"
		}
	}
	l, err := p.Listen(ctx, s.Socket, "tcp", address)
	if err != nil {
		return err
	}
	var onReady func()
	if s.OnReady != nil {
		onReady = func() { s.OnReady(p, l) }
	}
	return serve(ctx, p, s.HTTP, s.Grace, onReady, l)
}

// Serve is [Server.Run] for listeners of p, or listeners that wrap these. It checks srv,
// calls p.Ready, and then accepts. A process with several http.Servers opens all
// listeners, then calls Serve for each. Serve changes srv.Handler and srv.ConnState.
//
// When p is replaced, each response says "Connection: close", and HTTP/2 clients receive
// GOAWAY (docs/restart.md, "Hand-over"). An idle connection waits for its next request.
// When ctx ends and no successor is there, Serve calls p.Drain and closes idle connections
// at once, those of HTTP/2 when no request is left. As for [http.Server.Shutdown],
// a connection that has sent no request for 5 seconds is idle.
//
// In both cases requests have up to grace (zero: 30 seconds) to finish. Then connections
// are closed, and if they had requests the error wraps [context.DeadlineExceeded]. A long
// request ends in time if its handler watches p.Replaced and ctx. Connections that
// a handler has hijacked are the handler's. Functions of srv.RegisterOnShutdown run when
// no request is left.
//
// After a Shutdown of srv by the caller, Serve returns [http.ErrServerClosed]. If Ready
// fails, or srv cannot serve, p and the listeners stay as they are.
func Serve(ctx context.Context, p *handover.Process, srv *http.Server, grace time.Duration, l ...net.Listener) error {
	return serve(ctx, p, srv, grace, nil, l...)
}

func serve(ctx context.Context, p *handover.Process, srv *http.Server, grace time.Duration, onReady func(), list ...net.Listener) error {
	if grace == 0 {
		grace = 30 * time.Second
	}
	if len(list) == 0 {
		return errors.New("handoverhttp: no listener to serve")
	}
	accept := srv.Serve
	if hasCertificate(srv) { // before Serve, which sets TLSConfig
		accept = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	if err := check(srv, accept); err != nil {
		return err
	}
	if err := p.Ready(ctx); err != nil {
		return err
	}
	c := watch(srv)
	if onReady != nil {
		onReady()
	}
	returned := make(chan error, len(list))
	for _, l := range list {
		go func() { returned <- accept(l) }()
	}
	left := len(list)
	var err error
	for open := true; open && left > 0 && err == nil; {
		select {
		case <-p.Replaced():
			open = false
		case <-ctx.Done():
			open = false
		case err = <-returned:
			left--
			if errors.Is(err, net.ErrClosed) {
				err = nil // Replaced follows, or another Serve has called Drain
			}
		}
	}
	c.leaving.Store(true)
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	replaced := err == nil
	if ctx.Err() != nil {
		// Drain takes long only if no other process holds the sockets. Then idle
		// connections must not prevent a listener with a limit from accepting.
		closeIdle := time.AfterFunc(time.Second, func() { srv.SetKeepAlivesEnabled(false) })
		derr := p.Drain(end)
		closeIdle.Stop()
		if !errors.Is(derr, errors.ErrUnsupported) || end.Err() != nil { // else it is the best that this system can do
			err = errors.Join(err, derr)
		}
		select {
		case <-p.Replaced():
		default:
			replaced = false
		}
	}
	for _, l := range list {
		l.Close() // a wrapper's Accept may wait for something else than the listener
	}
	// Shutdown drops requests on connections that Serve has accepted and not begun to
	// read, so it comes last (net/http, Go 1.26).
	for ; left > 0; left-- {
		<-returned //nolint:errcheck // they were closed
	}
	if ferr := c.finish(end, srv, replaced); ferr != nil {
		err = errors.Join(err, ferr)
	}
	return err
}

func hasCertificate(srv *http.Server) bool {
	c := srv.TLSConfig
	return c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil)
}

// check returns the error that Serve or ServeTLS would return before the first Accept.
// After Ready it would come too late: the previous process has closed its listeners.
func check(srv *http.Server, accept func(net.Listener) error) error {
	base := srv.BaseContext
	srv.BaseContext = nil
	err := accept(closed{})
	srv.BaseContext = base
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// closed is a listener that is closed.
type closed struct{}

func (closed) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (closed) Close() error              { return nil }
func (closed) Addr() net.Addr            { return &net.TCPAddr{} }

// conns are the open connections of a server.
type conns struct {
	leaving atomic.Bool

	mu     sync.Mutex
	states map[net.Conn]http.ConnState
	change chan struct{} // holds one element after a change
}

// watch has srv report its connections, and close them when it is leaving.
func watch(srv *http.Server) *conns {
	c := &conns{states: map[net.Conn]http.ConnState{}, change: make(chan struct{}, 1)}
	handler, hook := srv.Handler, srv.ConnState
	if handler == nil {
		handler = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.leaving.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close") // HTTP/2 sends GOAWAY instead
		}
		handler.ServeHTTP(w, r)
	})
	srv.ConnState = func(conn net.Conn, s http.ConnState) {
		if hook != nil {
			hook(conn, s)
		}
		c.mu.Lock()
		if s == http.StateClosed || s == http.StateHijacked {
			delete(c.states, conn)
		} else {
			c.states[conn] = s
		}
		c.mu.Unlock()
		select {
		case c.change <- struct{}{}:
		default:
		}
	}
	return c
}

// finish ends srv when its connections have ended, at the latest at end. If it is not
// replaced, idle connections do not count.
func (c *conns) finish(end context.Context, srv *http.Server, replaced bool) error {
	states := []http.ConnState{http.StateActive, http.StateNew}
	var idle <-chan time.Time
	if replaced {
		states = append(states, http.StateIdle)
	} else {
		srv.SetKeepAlivesEnabled(false) // closes idle connections of HTTP/1
		idle = time.After(5 * time.Second)
	}
	for end.Err() == nil && c.count(states...) > 0 {
		select {
		case <-c.change:
		case <-idle:
			states = states[:1]
		case <-end.Done():
		}
	}
	deadline, _ := end.Deadline()
	last, cancel := context.WithDeadline(context.Background(), deadline.Add(100*time.Millisecond)) // for GOAWAY
	defer cancel()
	if srv.Shutdown(last) == nil {
		return nil
	}
	active := c.count(http.StateActive)
	srv.Close()
	if active == 0 {
		return nil
	}
	return fmt.Errorf("handoverhttp: %d connections with a request were closed after the time for them: %w", active, context.DeadlineExceeded)
}

// count returns how many connections are in one of the states.
func (c *conns) count(states ...http.ConnState) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.states {
		if slices.Contains(states, s) {
			n++
		}
	}
	return n
}
