//go:build unix

package handover_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// serveDatagrams answers datagrams from n sockets at one address, between which the
// kernel spreads clients, until ctx ends or another process has taken them over.
func serveDatagrams(ctx context.Context, c handover.Config, n int, network, address string, ready func(net.Addr)) error {
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	options := reuse.Config{PortLB: reuse.On}
	if n == 1 {
		options = reuse.Config{}
	}
	var sockets []net.PacketConn
	for range n {
		conn, err := p.ListenPacket(ctx, options, network, address)
		if err != nil {
			return err
		}
		defer conn.Close()
		sockets = append(sockets, conn)
		address = conn.LocalAddr().String() // if it was port 0, all have the same one
	}
	if err := p.Ready(ctx); err != nil { // before the first read
		return err
	}
	var readers sync.WaitGroup
	for _, conn := range sockets {
		readers.Go(func() { answerDatagrams(conn) })
	}
	ready(sockets[0].LocalAddr())
	select {
	case <-ctx.Done():
	case <-p.Replaced():
	}
	for _, conn := range sockets {
		if err := conn.SetReadDeadline(time.Now()); err != nil {
			return err
		}
	}
	readers.Wait() // what was read is answered; the next process reads the rest
	return nil
}

// answerDatagrams answers each datagram with itself, until the read deadline.
func answerDatagrams(conn net.PacketConn) {
	for buf := make([]byte, 512); ; {
		n, client, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(buf[:n], client) // an error is the client's
	}
}

// A server such as one for DNS reads from several sockets, and a process with the same
// Name takes all of them. Both ask for the same addresses in the same order. With port
// 0 the second process has the port of the first.
func ExampleProcess_ListenPacket() {
	n := 4
	if errors.Is(reuse.PortLB.Supported(), errors.ErrUnsupported) {
		n = 1 // where the kernel spreads nothing
	}
	c := config("dns")
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	serve := func(ready func(net.Addr)) {
		served <- serveDatagrams(ctx, c, n, "udp4", "127.0.0.1:0", ready)
	}
	go serve(func(first net.Addr) {
		go serve(func(next net.Addr) { // another process
			fmt.Println(next.String() == first.String(), ask(next))
			stop()
		})
	})
	fmt.Println(<-served, <-served)
	// Output:
	// true hello
	// <nil> <nil>
}
