//go:build linux

package main

import (
	"context"
	"net"
	"os"
	"runtime/debug"
	"syscall"

	kavu "github.com/kavu/go_reuseport"
	libp2p "github.com/libp2p/go-reuseport"
	"github.com/valyala/fasthttp/reuseport"
	"github.com/valyala/tcplisten"
	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// A way to share a port, or package net's not to. What a library cannot do is nil.
type way struct {
	name   string
	module string // of another library
	listen func(network, address string) (net.Listener, error)
	packet func(network, address string) (net.PacketConn, error)
	dial   func(network, laddr, raddr string) (net.Conn, error)
	viaNet bool // the listeners are package net's own, Multipath TCP if it says so
}

// The names of the ways that the others are compared with.
const (
	plain = "net"
	hand  = "hand"
	ours  = "reuse"
)

// ways returns all of them. Each makes a socket of its own on each call, as its
// users do.
func ways() []way {
	ctx := context.Background()
	config := reuse.Config{Port: reuse.On}
	return []way{
		{
			name: plain, viaNet: true,
			listen: net.Listen,
			packet: net.ListenPacket,
			dial: func(network, laddr, raddr string) (net.Conn, error) {
				return dialFrom(net.Dialer{}, network, laddr, raddr)
			},
		},
		{
			name: hand, viaNet: true,
			listen: func(network, address string) (net.Listener, error) {
				lc := net.ListenConfig{Control: handWritten}
				return lc.Listen(ctx, network, address)
			},
			packet: func(network, address string) (net.PacketConn, error) {
				lc := net.ListenConfig{Control: handWritten}
				return lc.ListenPacket(ctx, network, address)
			},
			dial: func(network, laddr, raddr string) (net.Conn, error) {
				return dialFrom(net.Dialer{Control: handWritten}, network, laddr, raddr)
			},
		},
		{
			name: ours, viaNet: true,
			listen: func(network, address string) (net.Listener, error) {
				return config.Listen(ctx, network, address)
			},
			packet: func(network, address string) (net.PacketConn, error) {
				return config.ListenPacket(ctx, network, address)
			},
			dial: func(network, laddr, raddr string) (net.Conn, error) {
				return config.Dial(ctx, network, laddr, raddr)
			},
		},
		{
			name: "libp2p", module: "github.com/libp2p/go-reuseport", viaNet: true,
			listen: libp2p.Listen,
			packet: libp2p.ListenPacket,
			dial:   libp2p.Dial,
		},
		{
			name: "kavu", module: "github.com/kavu/go_reuseport",
			listen: kavu.Listen,
			packet: kavu.ListenPacket,
		},
		{
			name: "tcplisten", module: "github.com/valyala/tcplisten",
			listen: (&tcplisten.Config{ReusePort: true}).NewListener,
		},
		{
			name: "fasthttp", module: "github.com/valyala/fasthttp",
			listen: reuseport.Listen,
		},
	}
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

// dialFrom is what one writes without a library to dial from a local address.
func dialFrom(d net.Dialer, network, laddr, raddr string) (net.Conn, error) {
	local, err := net.ResolveTCPAddr(network, laddr)
	if err != nil {
		return nil, err
	}
	d.LocalAddr = local
	return d.Dial(network, raddr)
}

// multipath says whether package net's listeners are Multipath TCP ones, as they are
// by default. The other libraries' never are, so they are compared without.
func multipath(on bool) error {
	if on {
		return os.Setenv("GODEBUG", "multipathtcp=2")
	}
	return os.Setenv("GODEBUG", "multipathtcp=0")
}

// versions returns the versions of the modules in this program.
func versions() map[string]string {
	list := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			list[m.Path] = m.Version
		}
	}
	return list
}
