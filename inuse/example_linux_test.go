package inuse_test

// The output of these examples is certain on Linux only.

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"example.com/reuse"
	"example.com/reuse/inuse"
)

// A server logs why it cannot start.
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
	defer l.Close()
	r, err := inuse.Check(context.Background(), reuse.Config{}, "tcp4", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Free, len(r.Holders))
	// Output: false 1
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
