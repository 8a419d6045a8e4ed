//go:build linux

package group_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"example.com/reuse/group"
)

// A webServer is a process of a web server that can be succeeded by another one.
type webServer struct {
	*http.Server
	group  *group.Group
	served chan error

	mu   sync.Mutex
	busy map[net.Conn]bool // connections that are new, or wait for an answer
	less chan bool         // busy has become less
}

// launch starts a process, to which new connections come when it returns. Then the
// process before is told to leave.
func launch(ctx context.Context, version, address string) (*webServer, error) {
	g, err := group.Config{}.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	s := &webServer{
		group:  g,
		served: make(chan error, 1),
		busy:   map[net.Conn]bool{},
		less:   make(chan bool, 1),
	}
	s.Server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello from version", version)
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ConnState:         s.track,
	}
	go func() { s.served <- g.Serve(s.Serve) }()
	if err := g.TakeOver(ctx, 0); err != nil {
		// The process before goes on, and this one answers what it was given.
		return nil, errors.Join(err, s.leave(ctx))
	}
	return s, nil
}

// leave ends a process that has a successor.
func (s *webServer) leave(ctx context.Context) error {
	s.SetKeepAlivesEnabled(false)
	err := errors.Join(
		s.group.Drain(ctx), // what is queued is accepted
		<-s.served,         // and known to track
		s.wait(ctx))        // and is answered: Shutdown drops what it has not begun to read
	return errors.Join(err, s.Shutdown(ctx))
}

// end ends a process that has none.
func (s *webServer) end() error {
	return errors.Join(s.group.Close(), <-s.served, s.Close())
}

func (s *webServer) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew || state == http.StateActive {
		s.busy[c] = true
		return
	}
	delete(s.busy, c)
	select {
	case s.less <- true:
	default:
	}
}

func (s *webServer) wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		n := len(s.busy)
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-s.less:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// get returns what a web server answers.
func get(server net.Addr) string {
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + server.String())
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// A web server restarts and loses no connection. Here both processes are one.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	old, err := launch(ctx, "1.0", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(get(old.group.Addr())) // a client

	successor, err := launch(ctx, "1.1", old.group.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	err = old.leave(ctx)
	fmt.Println("the old process ends:", err) // or what was lost, and why
	fmt.Print(get(successor.group.Addr()))

	if err := successor.end(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello from version 1.0
	// the old process ends: <nil>
	// hello from version 1.1
}
