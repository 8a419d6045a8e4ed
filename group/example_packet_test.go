//go:build linux

// Elsewhere sockets of UDP cannot be drained.

package group_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"sync"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/group"
)

// A service that answers each datagram by itself, as DNS does, and its successor.
func ExamplePacketGroup() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	old, err := group.Config{Size: 2}.ListenPacket(ctx, "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer old.Close()
	var readers sync.WaitGroup
	for _, c := range old.Conns() {
		readers.Go(func() { respond(c) })
	}

	g, err := group.Config{Size: 2}.ListenPacket(ctx, "udp4", old.LocalAddr().String()) // in the new process
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	for _, c := range g.Conns() {
		go respond(c)
	}
	if err := g.TakeOver(ctx, 0); err != nil {
		log.Fatal(err)
	}

	err = old.Drain(ctx)         // in the old one
	fmt.Println("drained:", err) // why not, and how many datagrams were abandoned
	readers.Wait()               // the last answers are written
	fmt.Println("closed:", old.Close())
	// Output:
	// drained: <nil>
	// closed: <nil>
}

// respond answers datagrams until its socket is closed.
func respond(c net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, err = c.WriteTo(b[:n], from)
		}
		if err != nil {
			log.Print(err)
		}
	}
}

func ExamplePacketGroup_Close() {
	g, err := group.Config{}.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if err := g.Close(); err != nil {
		log.Fatal(err)
	}
	_, _, err = g.Conns()[0].ReadFrom(make([]byte, 1500))
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output: true
}

// Each has the methods of a *net.UDPConn, such as SetReadBuffer.
func ExamplePacketGroup_Conns() {
	g, err := group.Config{Size: 2}.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	for _, c := range g.Conns() {
		if err := c.(interface{ SetReadBuffer(int) error }).SetReadBuffer(1 << 16); err != nil {
			log.Fatal(err)
		}
		options, err := reuse.Inspect(c.(syscall.Conn))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(options.PortLB)
	}
	// Output:
	// On
	// On
}

// Without another socket on the address, datagrams may be lost: Drain says so.
func ExamplePacketGroup_Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g, err := group.Config{}.ListenPacket(ctx, "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close() // when the last answer is written
	fmt.Println("nothing lost:", g.Drain(ctx) == nil)

	_, _, err = g.Conns()[0].ReadFrom(make([]byte, 1500))
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output:
	// nothing lost: false
	// true
}

// With port 0 the group's address tells which one it is.
func ExamplePacketGroup_LocalAddr() {
	g, err := group.Config{}.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	fmt.Println(g.LocalAddr().(*net.UDPAddr).Port != 0)
	// Output: true
}

// Of a generation of two processes, one calls TakeOver with the number of all sockets.
func ExamplePacketGroup_TakeOver() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first, err := group.Config{Size: 2}.ListenPacket(ctx, "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	second, err := group.Config{Size: 2}.ListenPacket(ctx, "udp4", first.LocalAddr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()
	fmt.Println(second.TakeOver(ctx, 4))
	// Output: <nil>
}
