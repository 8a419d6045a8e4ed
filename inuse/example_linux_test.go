package inuse_test

// What these print is certain on Linux.

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"example.com/reuse"
	"example.com/reuse/inuse"
)

// A server that says why it cannot start.
func ExampleExplain() {
	ctx, c := context.Background(), reuse.Config{}
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()

	_, err = c.Listen(ctx, "tcp4", other.Addr().String())
	if r, e := inuse.Explain(ctx, c, err); e == nil {
		log.Print(r) // all of it
		fmt.Println(r.Holders[0].State, r.Holders[0].PID == os.Getpid())
	}
	// Output: LISTEN true
}

// Can this server bind its address now?
func ExampleCheck() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, address := context.Background(), l.Addr().String()
	r, err := inuse.Check(ctx, reuse.Config{}, "tcp4", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Free, len(r.Holders))
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	r, err = inuse.Check(ctx, reuse.Config{}, "tcp4", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Free, len(r.Holders))
	// Output:
	// false 1
	// true 0
}

// Is it this process itself that has the port?
func ExampleReport() {
	ctx := context.Background()
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()

	_, err = net.Listen("tcp4", other.Addr().String())
	r, err := inuse.Explain(ctx, reuse.Config{}, err)
	if err != nil {
		log.Fatal(err)
	}
	for _, h := range r.Holders {
		fmt.Println(h.PID == os.Getpid())
	}
	fmt.Println(len(r.Reason) > 0, len(r.Advice) > 0)
	// Output:
	// true
	// true true
}

// Who has the port of this program's own listener?
func ExampleHolders() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	holders, err := inuse.Holders(context.Background(), "tcp4", l.Addr().String())
	if err != nil {
		log.Fatal(err) // errors.ErrUnsupported where the system does not show sockets
	}
	for _, h := range holders {
		log.Print(h) // "this process, pid 4211 (server), listening on 127.0.0.1:41873 (socket of uid 1000)"
	}
	fmt.Println(len(holders), holders[0].PID == os.Getpid())
	// Output: 1 true
}

// The sockets on a port are its listeners, and then the connections.
func ExampleHolder() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	conn, err := net.DialTimeout("tcp4", l.Addr().String(), 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}
	defer accepted.Close()
	holders, err := inuse.Holders(context.Background(), "tcp4", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	for _, h := range holders {
		fmt.Println(h.State, h.Remote.IsValid())
	}
	// Output:
	// LISTEN false
	// ESTABLISHED true
}
