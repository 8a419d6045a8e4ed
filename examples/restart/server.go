//go:build !android && !ios

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

// serverEnv has the server, as JSON, in a process that is one.
const serverEnv = "REUSE_RESTART_SERVER"

// A server is one version of it.
type server struct {
	Name    string // of the service
	Version int
	Mode    mode
	Network string
	Address string
}

// run serves until the server is replaced or standard input ends. It prints its
// address when it is ready.
func (s server) run() error {
	// A terminal sends Ctrl-C to all processes. Only the parent acts on it.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it, or has gone
		stop()
	}()
	srv := &http.Server{Addr: s.Address, ReadHeaderTimeout: patience}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.answer()) })
	switch {
	case s.Network == "udp":
		return s.answerDatagrams(ctx)
	case s.Mode == handOver:
		ready := func(_ *handover.Process, l net.Listener) { fmt.Println(l.Addr()) }
		h := handoverhttp.Server{HTTP: srv, Name: s.Name, OnReady: ready}
		return h.Run(ctx)
	default:
		return s.serveHTTP(ctx, srv)
	}
}

// serveHTTP is the server without a hand-over.
func (s server) serveHTTP(ctx context.Context, srv *http.Server) error {
	l, err := s.socket().Listen(ctx, s.Network, s.Address)
	if err != nil {
		return err
	}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() { stopped <- srv.Shutdown(context.Background()) })
	fmt.Println(l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// answer tells the clients who has answered. Another server may have the port by now.
func (s server) answer() string { return fmt.Sprintf("%s version %d", s.Name, s.Version) }

// socket has the options for the modes other than hand-over.
func (s server) socket() (c reuse.Config) {
	if s.Mode == naive {
		c.Port = reuse.On
	}
	return c
}

// answerDatagrams is the server for UDP.
func (s server) answerDatagrams(ctx context.Context) error {
	c := handover.Config{} // without a Name there is no succession
	if s.Mode == handOver {
		c.Name = s.Name
	}
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	conn, err := p.ListenPacket(ctx, s.socket(), s.Network, s.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := p.Ready(ctx); err != nil {
		return err
	}
	fmt.Println(conn.LocalAddr())
	go func() {
		select {
		case <-p.Replaced():
		case <-ctx.Done():
		}
		_ = conn.SetReadDeadline(time.Now()) // the next version reads the rest
	}()
	for buf := make([]byte, 100); ; {
		_, client, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err == nil {
			_, err = conn.WriteTo([]byte(s.answer()), client)
		}
		if err != nil {
			return err
		}
	}
}
