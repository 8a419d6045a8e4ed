//go:build unix

// Sockets join a group in another way on Windows.

package reuse_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// listenMulticast makes a receiver of an IPv4 group, on the interface that has
// an address; 0.0.0.0 lets the kernel choose one.
func listenMulticast(group netip.AddrPort, iface netip.Addr) (*net.UDPConn, error) {
	// Addr is what Linux and Solaris ask for, Port what the others do, besides.
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

// A receiver of mDNS beside others on the same machine, a system's own service perhaps:
// all get every datagram.
func Example_mdns() {
	conn, err := listenMulticast(netip.MustParseAddrPort("224.0.0.251:5353"), netip.IPv4Unspecified())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 9000) // mDNS has no larger ones (RFC 6762, section 17)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(from, n, "bytes")
	}
}
