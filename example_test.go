//go:build linux

// Linux is where what these print is certain.

package reuse_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"

	"example.com/reuse"
)

// Several processes serve one port. Where the system cannot spread connections
// over them, Prefer would let the first one serve alone.
func ExampleConfig_Listen() {
	l, err := reuse.Config{PortLB: reuse.On}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		log.Fatalf("one process only on this system: %v", err)
	}
	if err != nil {
		log.Fatal(err)
	}
	srv := http.Server{ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(stopped(), func() { srv.Shutdown(context.Background()) })()
	fmt.Println(srv.Serve(l))
	// Output: http: Server closed
}

// stopped is done when the process is to stop, as signal.NotifyContext's context.
func stopped() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A service that nobody may take the port from. On Windows that needs asking for.
func ExampleConfig_Listen_exclusive() {
	l, err := reuse.Config{Exclusive: reuse.On}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err) // a BSD or macOS wildcard address, say
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, err = reuse.Config{Port: reuse.On}.Listen(context.Background(), "tcp4", ":"+port)
	fmt.Println(errors.Is(err, syscall.EADDRINUSE))
	// Output: true
}

// With port 0 the kernel chooses a free port, which others may then join.
func ExampleConfig_ListenPacket() {
	c := reuse.Config{Port: reuse.On}
	first, err := c.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	second, err := c.ListenPacket(context.Background(), "udp4", first.LocalAddr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()
	fmt.Println(first.LocalAddr().String() == second.LocalAddr().String())
	// Output: true
}

// Dialing from the port of a listener, as for a hole through a NAT.
func ExampleConfig_Dial() {
	ctx := context.Background()
	c := reuse.Config{Port: reuse.On}
	l, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	other, err := net.Listen("tcp4", "127.0.0.1:0") // a peer
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()

	conn, err := c.Dial(ctx, "tcp4", l.Addr().String(), other.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.LocalAddr().String() == l.Addr().String())

	_, err = c.Dial(ctx, "tcp4", l.Addr().String(), other.Addr().String())
	fmt.Println(errors.Is(err, reuse.ErrTupleInUse))
	// Output:
	// true
	// true
}

// With a net.ListenConfig of one's own: its other fields, and its Control
// function, stay in force.
func ExampleConfig_ListenConfig() {
	lc, err := reuse.Config{Port: reuse.Prefer}.ListenConfig(net.ListenConfig{
		KeepAlive: time.Minute,
		Control: func(network, address string, rc syscall.RawConn) error {
			fmt.Println(network)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	l.Close()
	// Output: tcp4
}

// More connections from one address than there are ephemeral ports.
func ExampleConfig_Dialer() {
	d, err := reuse.Config{DeferPort: reuse.Prefer}.Dialer(net.Dialer{
		Timeout:   5 * time.Second,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	_, err = client.Get("http://127.0.0.1:1/")
	fmt.Println(errors.Is(err, syscall.ECONNREFUSED))
	// Output: true
}

// A configuration that contradicts itself is refused on every system alike.
func ExampleConfig_Check() {
	err := reuse.Config{Exclusive: reuse.On, Port: reuse.On}.Check()
	fmt.Println(errors.Is(err, reuse.ErrConflict), err)
	// Output: true reuse: check Exclusive: contradictory options: Exclusive On with Port On
}

func ExampleConfig_String() {
	fmt.Println(reuse.Config{Addr: reuse.Off, PortLB: reuse.Prefer})
	fmt.Println(reuse.Config{})
	// Output:
	// Addr=Off,PortLB=Prefer
	// Default
}

func ExampleOption_Supported() {
	switch err := reuse.PortLB.Supported(); {
	case err == nil:
		fmt.Println("several processes can share the load of a port")
	case errors.Is(err, errors.ErrUnsupported):
		fmt.Println("one process has to serve alone:", err)
	default:
		fmt.Println("could not find out:", err)
	}
	// Output: several processes can share the load of a port
}

// What a socket has that somebody else made. A net.Listener is no syscall.Conn by
// itself; the listeners of package net are.
func ExampleInspect() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	c, err := reuse.Inspect(l.(syscall.Conn))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("SO_REUSEPORT:", c.Port)
	// Output: SO_REUSEPORT: Off
}

// A Control function sets the options on a socket that package net makes.
func ExampleConfig_Control() {
	lc := net.ListenConfig{Control: reuse.Config{Addr: reuse.Off}.Control}
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	c, err := reuse.Inspect(l.(syscall.Conn))
	fmt.Println(c.Addr, err)
	// Output: Off <nil>
}
