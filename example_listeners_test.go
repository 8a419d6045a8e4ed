package reuse_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"example.com/reuse"
)

// listeners opens n listeners at one address, over which the kernel spreads new
// connections. Where it spreads nothing, it is one.
func listeners(ctx context.Context, n int, network, address string) (list []net.Listener, err error) {
	c := reuse.Config{PortLB: reuse.On}
	if errors.Is(reuse.PortLB.Supported(), errors.ErrUnsupported) {
		n, c = 1, reuse.Config{}
	}
	for range n {
		l, err := c.Listen(ctx, network, address)
		if err != nil {
			for _, l := range list {
				l.Close()
			}
			return nil, err
		}
		list = append(list, l)
		address = l.Addr().String() // if it was port 0, all have the same one
	}
	return list, nil
}

// A web server with an accept queue for each of its listeners. For datagrams it is
// ListenPacket, also with port 0.
func Example_listeners() {
	list, err := listeners(context.Background(), 4, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }),
		ReadHeaderTimeout: 5 * time.Second,
	}
	served := make(chan error, len(list))
	for _, l := range list {
		go func() { served <- srv.Serve(l) }()
	}
	fmt.Print(ask(list[0].Addr())) // a client: one of them answers

	srv.Close()
	for range list {
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}
	// Output: hello
}

// A server such as one for DNS, which answers a datagram with one, from several
// sockets. The datagrams of one client all come to the same socket.
func Example_packetConns() {
	n, c := 4, reuse.Config{PortLB: reuse.On}
	if errors.Is(reuse.PortLB.Supported(), errors.ErrUnsupported) {
		n, c = 1, reuse.Config{}
	}
	address := "127.0.0.1:0"
	for range n {
		conn, err := c.ListenPacket(context.Background(), "udp4", address)
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		address = conn.LocalAddr().String()
		go answerEach(conn) // until conn is closed
	}
	client, err := net.Dial("udp4", address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("a question")); err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 512)
	size, err := client.Read(buf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(buf[:size]))
	// Output: a question
}

// answerEach answers each datagram with itself.
func answerEach(conn net.PacketConn) {
	for buf := make([]byte, 512); ; {
		n, client, err := conn.ReadFrom(buf)
		if err == nil {
			_, err = conn.WriteTo(buf[:n], client)
		}
		if err != nil {
			return
		}
	}
}
