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
	var client sync.WaitGroup
	err := serveEcho(ctx, config("echo"), "127.0.0.1:0", func(a net.Addr) {
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

// config has a Name, except where processes cannot pass sockets. There a server stops
// gracefully, and that is all.
func config(name string) handover.Config {
	c := handover.Config{Name: fmt.Sprintf("%s-%d", name, os.Getpid())}
	p, err := c.Start(context.Background())
	if errors.Is(err, errors.ErrUnsupported) {
		return handover.Config{}
	} else if err != nil {
		log.Fatal(err)
	}
	p.Close()
	return c
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
