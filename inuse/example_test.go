package inuse_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"example.com/reuse"
	"example.com/reuse/inuse"
)

// A server that says why it cannot start.
func ExampleExplain() {
	ctx, c := context.Background(), reuse.Config{}
	l, err := c.Listen(ctx, "tcp", ":8080")
	if err != nil {
		if report, e := inuse.Explain(ctx, c, err); e == nil {
			log.Print(report)
		}
		log.Fatal(err)
	}
	defer l.Close()
}

// Who has the port of this program's own listener?
func ExampleHolders() {
	ctx := context.Background()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	holders, err := inuse.Holders(ctx, "tcp4", l.Addr().String())
	if errors.Is(err, errors.ErrUnsupported) {
		return // not shown on this system
	} else if err != nil {
		log.Fatal(err)
	}
	for _, h := range holders {
		fmt.Println(h) // "this process, pid 4211 (server, uid 1000), listening on 127.0.0.1:41873"
	}
}
