//go:build unix

package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// serveEcho is a server with a protocol of its own. It returns nil when it is replaced,
// or when ctx ends, and all that it has accepted is answered.
func serveEcho(ctx context.Context, c handover.Config, address string, ready func(net.Addr)) error {
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := p.Listen(ctx, reuse.Config{}, "tcp", address)
	if err != nil {
		return err
	}
	if err := p.Ready(ctx); err != nil {
		return err
	}
	ready(l.Addr())
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.Drain(drain); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			log.Print(err)
		}
	})
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) { // replaced, or drained
			return nil
		} else if err != nil {
			return err
		}
		connections.Go(func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn) // an error is the client's
		})
	}
}

// A TCP server that is not net/http.
func Example() {
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	c := handover.Config{Name: fmt.Sprint("echo-", os.Getpid())}
	var client sync.WaitGroup
	err := serveEcho(ctx, c, "127.0.0.1:0", func(a net.Addr) {
		client.Go(func() {
			fmt.Println(ask(a))
			stop()
		})
	})
	client.Wait()
	fmt.Println(err)
	// Output:
	// hello
	// <nil>
}

// serveDatagrams answers datagrams until ctx ends or another process has taken the socket.
func serveDatagrams(ctx context.Context, c handover.Config, address string, ready func(net.Addr)) error {
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	conn, err := p.ListenPacket(ctx, reuse.Config{}, "udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := p.Ready(ctx); err != nil { // before the first read
		return err
	}
	ready(conn.LocalAddr())
	go func() {
		select {
		case <-ctx.Done():
		case <-p.Replaced():
		}
		_ = conn.SetReadDeadline(time.Now()) // ends the loop: the next process reads the rest
	}()
	for buf := make([]byte, 512); ; {
		n, client, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
		_, _ = conn.WriteTo(buf[:n], client) // an error is the client's
	}
}

// A server that reads from several sockets, as one for DNS does, calls ListenPacket for
// each. With port 0 the second process has the port of the first.
func ExampleProcess_ListenPacket() {
	ctx, stop := context.WithCancel(context.Background())
	c := handover.Config{Name: fmt.Sprint("dns-", os.Getpid())}
	served := make(chan error)
	serve := func(ready func(net.Addr)) { served <- serveDatagrams(ctx, c, "127.0.0.1:0", ready) }
	go serve(func(first net.Addr) {
		go serve(func(next net.Addr) { // another process
			go func() {
				fmt.Println(next.String() == first.String(), ask(next))
				stop()
			}()
		})
	})
	fmt.Println(<-served, <-served)
	// Output:
	// true hello
	// <nil> <nil>
}

// ask is a client.
func ask(server net.Addr) string {
	conn, err := net.Dial(server.Network(), server.String())
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write([]byte("hello")) // or the read fails
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}
