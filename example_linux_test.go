package reuse_test

// What these print is certain on Linux.

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"syscall"
	"time"

	"example.com/reuse"
)

// Several processes serve one port, of which this one is the first and the second.
func ExampleConfig_Listen() {
	ctx := context.Background()
	c := reuse.Config{PortLB: reuse.On}
	l, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		log.Fatalf("one process only on this system: %v", err)
	} else if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	second, err := c.Listen(ctx, "tcp4", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()
	fmt.Println(second.Addr().String() == l.Addr().String())
	// Output: true
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

// Dialing from the port of a listener. Both sockets have Port.
func ExampleConfig_Dial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := reuse.Config{Port: reuse.On}
	l, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer peer.Close()

	conn, err := c.Dial(ctx, "tcp4", l.Addr().String(), peer.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.LocalAddr().String() == l.Addr().String())

	_, err = c.Dial(ctx, "tcp4", l.Addr().String(), l.Addr().String())
	fmt.Println(errors.Is(err, reuse.ErrSelfDial))
	// Output:
	// true
	// true
}

// Two peers meet through their NATs: each listens, and dials the other from the port
// that it listens on, which opens its NAT for the other. Who dials late finds that
// there is a connection already, and accepts it.
func Example_holePunching() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := reuse.Config{Port: reuse.On}
	here, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err) // Windows and illumos cannot do it
	}
	defer here.Close()
	if err := here.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		log.Fatal(err)
	}
	there, err := c.Listen(ctx, "tcp4", "127.0.0.1:0") // the peer's
	if err != nil {
		log.Fatal(err)
	}
	defer there.Close()
	theirs, err := c.Dial(ctx, "tcp4", there.Addr().String(), here.Addr().String()) // it is first
	if err != nil {
		log.Fatal(err)
	}
	defer theirs.Close()

	conn, err := c.Dial(ctx, "tcp4", here.Addr().String(), there.Addr().String())
	if errors.Is(err, reuse.ErrTupleInUse) {
		fmt.Println("the peer was first")
		conn, err = here.Accept()
	}
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.RemoteAddr().String() == there.Addr().String())
	// Output:
	// the peer was first
	// true
}

// With a net.ListenConfig of one's own: its other fields, and its Control
// function, stay in force.
func ExampleConfig_ListenConfig() {
	lc, err := reuse.Config{Port: reuse.Prefer}.ListenConfig(net.ListenConfig{
		KeepAlive: time.Minute,
		Control: func(network, _ string, _ syscall.RawConn) error {
			fmt.Println(network)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	lc.SetMultipathTCP(false) // or Control may be called twice
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	// Output: tcp4
}

// Which of the options has this system?
func ExampleOption() {
	for o := reuse.Addr; o <= reuse.DeferPort; o++ {
		fmt.Println(o, o.Supported() == nil)
	}
	// Output:
	// Addr true
	// Port true
	// PortLB true
	// Exclusive true
	// DeferPort true
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

// That a system lacks an option is told from other failures, whatever errno it has for
// that. Package syscall does not count this one.
func ExampleOptionError_Is() {
	lacks := os.NewSyscallError("setsockopt", syscall.ENOPROTOOPT)
	err := &reuse.OptionError{Op: "set", Option: reuse.Port, Err: lacks}
	fmt.Println(errors.Is(err, errors.ErrUnsupported))
	fmt.Println(errors.Is(lacks, errors.ErrUnsupported))
	// Output:
	// true
	// false
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
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Addr)
	// Output: Off
}
