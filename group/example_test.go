//go:build linux

// Linux is where what these print is certain: FreeBSD, OpenBSD, NetBSD and macOS want
// another Socket, and elsewhere nothing hands over.

package group_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/group"
)

// Four listeners, whoever is slow to accept; a drain that waits a second for
// handshakes.
func ExampleConfig() {
	c := group.Config{Size: 4, Handshake: time.Second, Rescue: true}
	g, err := c.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	fmt.Println(len(g.Listeners()))
	// Output: 4
}

// A process opens its listeners beside those of the one that it succeeds. On Linux
// nothing else is needed; the other systems that hand over need Port.
func ExampleConfig_Listen() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := group.Config{Socket: reuse.Config{Port: reuse.On}}
	old, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer old.Close()
	g, err := c.Listen(ctx, "tcp4", old.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	fmt.Println(g.Addr().String() == old.Addr().String())
	// Output: true
}

func ExampleConfig_ListenPacket() {
	g, err := group.Config{Size: 2}.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	fmt.Println(len(g.Conns()), g.LocalAddr().Network())
	// Output: 2 udp
}

// The server before had a listener of its own, which shares the port. Its successor
// has a group.
func ExampleDrainListener() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := reuse.Config{PortLB: reuse.On}.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- say("the old server")(l) }()

	g, err := group.Config{}.Listen(ctx, "tcp4", l.Addr().String()) // in the new process
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	if err := g.TakeOver(ctx, 0); err != nil {
		log.Fatal(err)
	}

	fmt.Println(group.DrainListener(ctx, l)) // in the old one
	fmt.Println(errors.Is(<-served, net.ErrClosed))
	// Output:
	// <nil>
	// true
}

// One server of net/http with several listeners.
func ExampleGroup() {
	g, err := group.Config{Size: 2}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello")
		}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(srv.Serve) }()
	fmt.Print(get(g.Addr())) // a client

	// A server that has a successor drains its group instead of closing it.
	g.Close()
	fmt.Println(<-served)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello
	// <nil>
}

// With port 0 the group's address tells which one it is.
func ExampleGroup_Addr() {
	g, err := group.Config{}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	fmt.Println(g.Addr().(*net.TCPAddr).Port != 0)
	// Output: true
}

// A server that has no successor closes. What it has not accepted is lost.
func ExampleGroup_Close() {
	g, err := group.Config{}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if err := g.Close(); err != nil {
		log.Fatal(err)
	}
	_, err = g.Listeners()[0].Accept()
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output: true
}

// The old process drains when it is told that its successor has taken over.
func ExampleGroup_Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	old, err := group.Config{}.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- old.Serve(say("hello from the old process")) }()
	fmt.Println(hear(old.Addr()))

	successor, err := group.Config{}.Listen(ctx, "tcp4", old.Addr().String()) // in the new process
	if err != nil {
		log.Fatal(err)
	}
	defer successor.Close()
	if err := successor.TakeOver(ctx, 0); err != nil {
		log.Fatal(err)
	}

	err = old.Drain(ctx)
	fmt.Println("drained:", err) // why not, and how many connections were abandoned
	fmt.Println("served:", <-served)
	// Output:
	// hello from the old process
	// drained: <nil>
	// served: <nil>
}

// What a listener has can be asked for, or set, like that of package net.
func ExampleGroup_Listeners() {
	g, err := group.Config{Size: 2}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	for _, l := range g.Listeners() {
		c, err := reuse.Inspect(l.(syscall.Conn))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(c.PortLB)
	}
	// Output:
	// On
	// On
}

// Any function that serves a net.Listener does: http.Server.Serve, grpc.Server.Serve.
func ExampleGroup_Serve() {
	g, err := group.Config{Size: 2}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(say("hello")) }()

	fmt.Println(hear(g.Addr()))
	g.Close()
	fmt.Println(<-served)
	// Output:
	// hello
	// <nil>
}

// From the return of TakeOver on, new connections come to the new process.
func ExampleGroup_TakeOver() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	old, err := group.Config{}.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer old.Close()
	go old.Serve(say("hello from the old process"))

	g, err := group.Config{}.Listen(ctx, "tcp4", old.Addr().String()) // in the new process
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	go g.Serve(say("hello from the new process"))
	if err := g.TakeOver(ctx, 0); err != nil {
		log.Fatal(err) // it wraps errors.ErrUnsupported where nothing can be steered
	}

	fmt.Println(hear(g.Addr())) // and now the old process can be told to drain
	// Output: hello from the new process
}

// say returns a server that says something to whoever connects.
func say(text string) func(net.Listener) error {
	return func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			_, _ = io.WriteString(c, text) // the client may have gone
			c.Close()
		}
	}
}

// hear returns what a server says.
func hear(server net.Addr) string {
	c, err := net.DialTimeout(server.Network(), server.String(), 10*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	text, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
