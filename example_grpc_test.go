package reuse_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/rpc"
	"time"

	"example.com/reuse"
)

// An rpcServer stands for a *grpc.Server, which has a Serve(net.Listener), too.
type rpcServer struct{ *rpc.Server }

func (s rpcServer) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go s.ServeConn(conn)
	}
}

// A Greeter is a service of the server.
type Greeter struct{}

func (Greeter) Hello(name string, answer *string) error {
	*answer = "hello, " + name
	return nil
}

// The listeners are those of package net, so that whatever has a Serve(net.Listener)
// takes them, as gRPC does.
func Example_grpcServe() {
	s := rpcServer{rpc.NewServer()}
	if err := s.Register(Greeter{}); err != nil {
		log.Fatal(err)
	}
	l, err := reuse.Config{PortLB: reuse.Prefer}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	conn, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	client := rpc.NewClient(conn)
	defer client.Close()
	var answer string
	if err := client.Call("Greeter.Hello", "gopher", &answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer)

	l.Close()
	fmt.Println(errors.Is(<-served, net.ErrClosed))
	// Output:
	// hello, gopher
	// true
}
