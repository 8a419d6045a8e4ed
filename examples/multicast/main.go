//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Multicast has two receivers of one multicast group share a port. A sender's
// datagrams reach both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/multicast [-group address]

Two receivers join one IPv4 multicast group on one port, which they have to
share, and a sender sends a few datagrams to it: both receivers get them all.
Everything stays on the loopback interface.

Systems: all that have sockets, without privileges. Not Plan 9, js and wasip1.

Exit status: 0 if both got all
  2    if they did not, or this could not be done
  130  if it was interrupted
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/multicast
  go run ./examples/multicast -group 239.255.1.2
`

const (
	datagrams = 3

	// patience is for all that is sent and received, which takes no time on one
	// machine.
	patience = 3 * time.Second
)

// share lets the receivers have one port. Both must have it.
//
//   - Addr is what Linux, Windows, Solaris and illumos ask for.
//   - Port is what the BSDs, macOS and AIX ask for, besides, as the sockets are
//     bound to the wildcard address. Windows and illumos have no such option.
//
// Package net sets the same by itself when it listens on a multicast address. To
// ask for it makes sure of it, and keeps Linux from choosing a port for the first
// receiver that somebody else's receivers have.
var share = reuse.Config{Addr: reuse.On, Port: reuse.Prefer}

// loopback is the interface that the datagrams go through, by its address.
var loopback = [4]byte{127, 0, 0, 1}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	return term.Exit("multicast", multicast(args, stdout), stderr)
}

func multicast(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("multicast", flag.ContinueOnError)
	group := netip.MustParseAddr("239.86.21.7") // of those for use within a site
	flags.TextVar(&group, "group", group, "IPv4 multicast `address`")
	if err := term.Parse(flags, help, args, stdout); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return term.Mistake("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	if !group.Is4() || !group.IsMulticast() {
		return term.Mistake("-group %v is no IPv4 multicast address: take one from 239.0.0.0/8", group)
	}
	s := term.New(stdout)
	return errors.Join(show(s, group), s.Err())
}

func show(s *term.Screen, group netip.Addr) error {
	first, err := receive(netip.AddrPortFrom(group, 0))
	if err != nil {
		return err
	}
	defer first.Close()
	to := netip.AddrPortFrom(group, first.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	second, err := receive(to)
	if err != nil {
		return err
	}
	defer second.Close()
	s.Textf("Two receivers join %v on the loopback interface.", group)
	for i, r := range []*net.UDPConn{first, second} {
		c, err := reuse.Inspect(r)
		if err != nil {
			return err
		}
		s.Textf("Receiver %d is bound to %v, Addr=%v, Port=%v.", i+1, r.LocalAddr(), c.Addr, c.Port)
	}

	sender, err := send()
	if err != nil {
		return err
	}
	defer sender.Close()
	s.Textf("The sender is %v.", sender.LocalAddr())
	s.Printf("\n")

	deadline := time.Now().Add(patience)
	for _, c := range []*net.UDPConn{first, second, sender} {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	from := sender.LocalAddr().(*net.UDPAddr).AddrPort()
	for i := range datagrams {
		text := fmt.Sprintf("datagram %d of %d", i+1, datagrams)
		if _, err := sender.WriteToUDPAddrPort([]byte(text), to); err != nil {
			return explain(err)
		}
		s.Textf("The sender sends %q to %v.", text, to)
		for j, r := range []*net.UDPConn{first, second} {
			got, err := next(r, from)
			if err != nil {
				return fmt.Errorf("receiver %d got nothing: %w; does a firewall drop multicast?", j+1, err)
			}
			s.Indentf("  ", "Receiver %d gets %q.", j+1, got)
			if got != text {
				return fmt.Errorf("receiver %d got %q instead of %q", j+1, got, text)
			}
		}
	}
	s.Printf("\n")
	s.Textf("Both receivers got all %d datagrams.", datagrams)
	return nil
}

// receive makes a socket that receives what is sent to a group and port.
//
// Package net binds a socket for a multicast address to the wildcard address,
// and this is what works everywhere: Windows cannot bind the address of a group.
// So the socket gets what is sent to the port by unicast, too; see next.
func receive(group netip.AddrPort) (*net.UDPConn, error) {
	p, err := share.ListenPacket(context.Background(), "udp4", group.String())
	if err != nil {
		return nil, err
	}
	c := p.(*net.UDPConn)
	if err := control(c, func(fd uintptr) error { return join(fd, group.Addr().As4()) }); err != nil {
		c.Close()
		return nil, fmt.Errorf("join %v: %w", group.Addr(), explain(err))
	}
	return c, nil
}

// send makes a socket that sends to groups through the loopback interface. It
// shares nothing.
func send() (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP(loopback[:])})
	if err != nil {
		return nil, err
	}
	// Otherwise the route to the group decides, and there may be none.
	if err := control(c, sendThroughLoopback); err != nil {
		c.Close()
		return nil, explain(err)
	}
	return c, nil
}

// next returns the next datagram that comes from a given sender. Anybody can send
// to the port, see receive.
func next(c *net.UDPConn, from netip.AddrPort) (string, error) {
	buf := make([]byte, 512)
	for {
		n, sender, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return "", err
		}
		if sender == from {
			return string(buf[:n]), nil
		}
	}
}

// control calls f with the descriptor of a socket.
func control(c *net.UDPConn, f func(fd uintptr) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(fd) }); err != nil {
		return err
	}
	return ferr
}

// explain adds what to look at where there is no multicast.
func explain(err error) error {
	return fmt.Errorf("%w (is the loopback interface up, with the address 127.0.0.1?)", err)
}
