//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/group"
)

// patience is how long anything may take before it counts as broken.
const patience = 20 * time.Second

// A server is a number of listeners of one way, on one port.
type server struct {
	way       string
	listeners []net.Listener // package net has one, on which several loops accept
	close     func()
}

// groupWay is this library's package group.
const groupWay = "group"

func serverWays() []string {
	list := []string{plain, hand, groupWay}
	for _, w := range ways() {
		if !slices.Contains(list, w.name) {
			list = append(list, w.name)
		}
	}
	return list
}

// open opens n listeners; those that do not share are one.
func open(ctx context.Context, name string, n int) (*server, error) {
	if name == groupWay {
		g, err := group.Config{Size: n, Socket: reuse.Config{Port: reuse.On}}.Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		return &server{way: name, listeners: g.Listeners(), close: func() { g.Close() }}, nil
	}
	all := ways()
	w := all[slices.IndexFunc(all, func(w way) bool { return w.name == name })]
	s := &server{way: name}
	s.close = func() {
		for _, l := range s.listeners {
			l.Close()
		}
	}
	if name == plain {
		n = 1
	}
	address := "127.0.0.1:0"
	for range n {
		l, err := w.listen("tcp4", address)
		if err != nil {
			s.close()
			return nil, err
		}
		s.listeners = append(s.listeners, l)
		address = l.Addr().String()
	}
	return s, nil
}

// A counter is the accept loops of a server, and what they have accepted.
type counter struct {
	accepted atomic.Int64
	all      chan struct{} // closed when that is as many as there should be
	loops    sync.WaitGroup
}

// serve starts n accept loops.
func (s *server) serve(n, connections int) *counter {
	c := &counter{all: make(chan struct{})}
	for i := range n {
		l := s.listeners[i%len(s.listeners)]
		c.loops.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return // closed
				}
				conn.Close()
				if c.accepted.Add(1) == int64(connections) {
					close(c.all)
				}
			}
		})
	}
	return c
}

func (c *counter) wait(ctx context.Context) error {
	select {
	case <-c.all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return fmt.Errorf("only %d connections were accepted", c.accepted.Load())
	}
}

// clients is how many connect at a time.
const clients = 2

// connect makes connections. It waits where the server is too far behind, since
// a full queue costs a client a second.
func (s *server) connect(connections int, behind func(made int64) bool) error {
	port := s.listeners[0].Addr().(*net.TCPAddr).Port
	var made atomic.Int64
	errs := make(chan error, clients)
	for i := range clients {
		go func() {
			to := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}} // Connect writes to it
			for n := i; n < connections; n += clients {
				for begin := time.Now(); behind(made.Load()); runtime.Gosched() {
					if time.Since(begin) > patience {
						errs <- errors.New("the server does not accept")
						return
					}
				}
				if err := hello(to); err != nil {
					errs <- err
					return
				}
				made.Add(1)
			}
			errs <- nil
		}()
	}
	var first error
	for range clients {
		if err := <-errs; err != nil {
			first = err
		}
	}
	return first
}

// hello is as little as a client can do: it connects, sends a byte, without which
// a listener with TCP_DEFER_ACCEPT gets no connection, and hangs up with a reset,
// which leaves no port in TIME_WAIT.
func hello(to unix.Sockaddr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	if err := unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Connect(s, to); err != nil {
		return os.NewSyscallError("connect", err)
	}
	_, err = unix.Write(s, []byte{1})
	return os.NewSyscallError("write", err)
}

// live is the time from the first connect to the last accept.
func (s *server) live(ctx context.Context, n, connections int) (lap, error) {
	c := s.serve(n, connections)
	defer c.loops.Wait()
	defer s.close()
	watch, err := start()
	if err != nil {
		return lap{}, err
	}
	if err := s.connect(connections, func(made int64) bool { return made-c.accepted.Load() > 1000 }); err != nil {
		return lap{}, err
	}
	if err := c.wait(ctx); err != nil {
		return lap{}, err
	}
	return watch.stop()
}

// queued is the time that the accept loops take for connections that are in the
// queues already.
func (s *server) queued(ctx context.Context, n, connections int) (lap, error) {
	if err := s.connect(connections, func(int64) bool { return false }); err != nil {
		s.close()
		return lap{}, err
	}
	watch, err := start()
	if err != nil {
		s.close()
		return lap{}, err
	}
	c := s.serve(n, connections)
	defer c.loops.Wait()
	defer s.close()
	if err := c.wait(ctx); err != nil {
		return lap{}, err
	}
	return watch.stop()
}

// sizes are the numbers of listeners, and of accept loops.
var sizes = [...]int{1, 2, 4}

// measureAccept measures short connections, live and queued.
func (r *results) measureAccept(ctx context.Context, o options) error {
	if err := multipath(false); err != nil {
		return err
	}
	for _, kind := range []struct {
		name string
		time func(*server, context.Context, int, int) (lap, error)
		into *[]series
	}{
		{"live", (*server).live, &r.live},
		{"queued", (*server).queued, &r.queued},
	} {
		for _, n := range sizes {
			s := newSeries(fmt.Sprint(n), serverWays())
			for range o.accepts {
				for _, i := range rand.Perm(len(s.ways)) {
					server, err := open(ctx, s.ways[i], n)
					if err != nil {
						return fmt.Errorf("%s: %w", s.ways[i], err)
					}
					took, err := kind.time(server, ctx, n, o.conns)
					if err != nil {
						return fmt.Errorf("%s, %d %s: %w", s.ways[i], n, kind.name, err)
					}
					s.add(i, took, o.conns)
				}
			}
			*kind.into = append(*kind.into, s)
		}
	}
	return nil
}
