package reuse_test

// The output of these examples is certain on Linux only.

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// Several processes can serve one port. Here one process opens it twice.
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

// A service whose port no other process can take. On Windows any process of the same
// user may otherwise bind a more specific address, and get the connections to it.
func ExampleConfig_Listen_exclusive() {
	l, err := reuse.Config{Exclusive: reuse.On}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err) // for example a wildcard address of a BSD or macOS
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, err = reuse.Config{Port: reuse.On}.Listen(context.Background(), "tcp4", ":"+port)
	fmt.Println(errors.Is(err, syscall.EADDRINUSE))
	// Output: true
}

// With port 0 the kernel chooses a free port, which other sockets can then join.
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

// Two peers connect through their NATs. Each peer dials the other from the port of its own
// listener, which opens its NAT for the other. Both sockets have Port On. The peer that
// dials second gets ErrTupleInUse, because the connection exists already, and accepts it.
func ExampleConfig_Dial() {
	ctx := context.Background()
	c := reuse.Config{Port: reuse.On}
	here, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err) // Port is unsupported on Windows and illumos
	}
	defer here.Close()
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

// The options of a socket that another package made. The listeners of package net are
// a syscall.Conn, which the type net.Listener does not say.
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

// listenMulticast returns a receiver of an IPv4 group on the interface that has an address.
// With 0.0.0.0 the kernel chooses the interface.
func listenMulticast(group netip.AddrPort, iface netip.Addr) (*net.UDPConn, error) {
	// Linux and Solaris need Addr, and the other systems Port.
	c := reuse.Config{Addr: reuse.On, Port: reuse.Prefer}
	p, err := c.ListenPacket(context.Background(), "udp4", group.String())
	if err != nil {
		return nil, err
	}
	conn := p.(*net.UDPConn)
	if err := join(conn, &unix.IPMreq{Multiaddr: group.Addr().As4(), Interface: iface.As4()}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func join(conn *net.UDPConn, group *unix.IPMreq) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var joinErr error
	err = rc.Control(func(fd uintptr) {
		joinErr = unix.SetsockoptIPMreq(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, group)
	})
	return errors.Join(err, os.NewSyscallError("setsockopt IP_ADD_MEMBERSHIP", joinErr))
}

// A receiver of mDNS alongside others on the same machine, for example a service of the
// system. Each gets every datagram. Windows joins a group in another way.
func Example_mdns() {
	conn, err := listenMulticast(netip.MustParseAddrPort("224.0.0.251:5353"), netip.IPv4Unspecified())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 9000) // mDNS has no larger ones (RFC 6762, section 17)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(from, n, "bytes")
	}
}
