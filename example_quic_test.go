package reuse_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"example.com/reuse"
)

// A transport is what a QUIC library makes of a packet connection: all sessions,
// those that it accepts and those that it dials, go through this one socket.
type transport struct {
	Conn net.PacketConn
}

// echo answers one datagram.
func (t *transport) echo() error {
	b := make([]byte, 1500)
	n, from, err := t.Conn.ReadFrom(b)
	if err != nil {
		return err
	}
	_, err = t.Conn.WriteTo(b[:n], from)
	return err
}

// A socket for QUIC. The sessions are lost if other sockets come to share its port,
// or leave it: the kernel then gives their datagrams to somebody else. So it is
// Exclusive, where the system can promise that.
func Example_quic() {
	conn, err := reuse.Config{Exclusive: reuse.Prefer}.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		log.Fatal(err)
	}
	// It is a *net.UDPConn, whose further methods a library may want.
	t := transport{Conn: conn.(*net.UDPConn)}
	echoed := make(chan error, 1)
	go func() { echoed <- t.echo() }()

	client, err := net.DialTimeout("udp4", conn.LocalAddr().String(), 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		log.Fatal(err)
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		log.Fatal(err)
	}
	if err := <-echoed; err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 1500)
	n, err := client.Read(b)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b[:n]))
	// Output: hello
}
