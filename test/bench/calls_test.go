//go:build linux

// Package bench compares this library with package net and with other libraries.
//
//	go test -bench . -count 10
package bench

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"

	kavu "github.com/kavu/go_reuseport"
	libp2p "github.com/libp2p/go-reuseport"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp/reuseport"
	"golang.org/x/sys/unix"

	"example.com/reuse"
)

var (
	config   = reuse.Config{Port: reuse.On}
	byHand   = net.ListenConfig{Control: handWritten}
	listener = []peer[net.Listener]{
		{"net", net.Listen},
		{"hand", func(network, address string) (net.Listener, error) {
			return byHand.Listen(context.Background(), network, address)
		}},
		{"reuse", func(network, address string) (net.Listener, error) {
			return config.Listen(context.Background(), network, address)
		}},
		{"libp2p", libp2p.Listen},
		{"kavu", kavu.Listen},
		{"fasthttp", reuseport.Listen},
	}
	packetConn = []peer[net.PacketConn]{
		{"net", net.ListenPacket},
		{"hand", func(network, address string) (net.PacketConn, error) {
			return byHand.ListenPacket(context.Background(), network, address)
		}},
		{"reuse", func(network, address string) (net.PacketConn, error) {
			return config.ListenPacket(context.Background(), network, address)
		}},
		{"libp2p", libp2p.ListenPacket},
		{"kavu", kavu.ListenPacket},
	}
)

// A peer is a way to open a socket that shares its port. Package net's does not share.
type peer[T io.Closer] struct {
	name string
	open func(network, address string) (T, error)
}

// handWritten is the Control function that one writes without a library.
func handWritten(_, _ string, rc syscall.RawConn) error {
	var setErr error
	err := rc.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return setErr
}

// All peers but package net share a port.
func TestPeersShare(t *testing.T) {
	share(t, listener, "tcp4", net.Listener.Addr)
	share(t, packetConn, "udp4", net.PacketConn.LocalAddr)
}

func share[T io.Closer](t *testing.T, peers []peer[T], network string, addr func(T) net.Addr) {
	for _, p := range peers {
		first, err := p.open(network, "127.0.0.1:0")
		require.NoError(t, err, p.name)
		defer first.Close()
		second, err := p.open(network, addr(first).String())
		if p.name == "net" {
			require.ErrorIs(t, err, unix.EADDRINUSE)
			continue
		}
		require.NoError(t, err, p.name)
		second.Close()
	}
}

// Only some peers' listeners are Multipath TCP ones, so all are compared without it.
const noMultipath = "multipathtcp=0"

func BenchmarkListen(b *testing.B) {
	b.Setenv("GODEBUG", noMultipath)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	require.NoError(b, l.Close())
	open(b, "port=0", listener, "tcp4", "127.0.0.1:0")
	open(b, "port=given", listener, "tcp4", l.Addr().String())
	b.Setenv("GODEBUG", "multipathtcp=2")
	open(b, "port=0,multipath", listener[:4], "tcp4", "127.0.0.1:0")
}

func BenchmarkListenPacket(b *testing.B) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(b, err)
	require.NoError(b, c.Close())
	open(b, "port=0", packetConn, "udp4", "127.0.0.1:0")
	open(b, "port=given", packetConn, "udp4", c.LocalAddr().String())
}

// open measures each peer's call and Close.
func open[T io.Closer](b *testing.B, name string, peers []peer[T], network, address string) {
	for _, p := range peers {
		b.Run(name+"/lib="+p.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := p.open(network, address)
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

// BenchmarkDial dials from a local address with port 0, and resets the connection.
func BenchmarkDial(b *testing.B) {
	b.Setenv("GODEBUG", noMultipath)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	for _, p := range []struct {
		name string
		dial func(network, laddr, raddr string) (net.Conn, error)
	}{
		{"net", func(network, laddr, raddr string) (net.Conn, error) {
			return dialFrom(net.Dialer{}, network, laddr, raddr)
		}},
		{"hand", func(network, laddr, raddr string) (net.Conn, error) {
			return dialFrom(net.Dialer{Control: handWritten}, network, laddr, raddr)
		}},
		{"reuse", func(network, laddr, raddr string) (net.Conn, error) {
			return config.Dial(context.Background(), network, laddr, raddr)
		}},
		{"libp2p", libp2p.Dial},
	} {
		b.Run("lib="+p.name, func(b *testing.B) {
			b.ReportAllocs()
			for n := 1; b.Loop(); n++ {
				c, err := p.dial("tcp4", "127.0.0.1:0", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
				c.Close()
				if n%100 == 0 { // empties the queue
					b.StopTimer()
					accept(b, l, 100)
					b.StartTimer()
				}
			}
			accept(b, l, b.N%100)
		})
	}
}

// dialFrom dials from a local address without a library.
func dialFrom(d net.Dialer, network, laddr, raddr string) (net.Conn, error) {
	local, err := net.ResolveTCPAddr(network, laddr)
	if err != nil {
		return nil, err
	}
	d.LocalAddr = local
	return d.Dial(network, raddr)
}

func accept(b *testing.B, l net.Listener, n int) {
	for range n {
		c, err := l.Accept()
		require.NoError(b, err)
		c.Close()
	}
}
