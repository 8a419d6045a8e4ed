//go:build (unix && !android && !ios) || windows

// Multicast has two receivers of one multicast group share a port. A sender's datagrams
// reach both.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/multicast

Two receivers join one IPv4 multicast group on one port, which they have to
share, and a sender sends a few datagrams to it: both receivers get them all.
Everything stays on the loopback interface. It runs on Unix and Windows.

Exit status: 0 if both got all, 2 if they did not, or this could not be done.
`

const datagrams = 3

// share lets the receivers have one port. Addr is what Linux, Windows, Solaris and illumos
// ask for. The BSDs, macOS and AIX also ask for Port, which Windows and illumos lack.
var share = reuse.Config{Addr: reuse.On, Port: reuse.Prefer}

// loopback is the interface that the datagrams go through, by its address.
var loopback = [4]byte{127, 0, 0, 1}

// group is one of the addresses for use within a site.
var group = netip.AddrFrom4([4]byte{239, 86, 21, 7})

func main() { term.Main(help, 0, run) }

func run() error {
	var receivers []*net.UDPConn
	to := netip.AddrPortFrom(group, 0)
	for i := range 2 {
		r, err := receive(to)
		if err != nil {
			return err
		}
		defer r.Close()
		term.Say("Receiver %d of %v is bound to %v.", i+1, group, r.LocalAddr())
		receivers = append(receivers, r)
		to = netip.AddrPortFrom(group, r.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	}
	sender, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback[:]})
	if err != nil {
		return err
	}
	defer sender.Close()
	// Without this the route to the group decides, and there may be none.
	if err := set(sender, syscall.SetsockoptInet4Addr, syscall.IP_MULTICAST_IF, loopback); err != nil {
		return fmt.Errorf("set IP_MULTICAST_IF: %w", err)
	}
	for i := range datagrams {
		text := fmt.Sprintf("datagram %d of %d", i+1, datagrams)
		if _, err := sender.WriteToUDPAddrPort([]byte(text), to); err != nil {
			return fmt.Errorf("%w (is the loopback interface up?)", err)
		}
		term.Say("The sender sends %q to %v.", text, to)
		for j, r := range receivers {
			if err := next(r, sender.LocalAddr().String(), text); err != nil {
				return fmt.Errorf("receiver %d: %w (does a firewall drop multicast?)", j+1, err)
			}
			term.Say("  Receiver %d gets %q.", j+1, text)
		}
	}
	return nil
}

// receive makes a socket that receives what is sent to a group and port. Package net binds
// it to the wildcard address, because Windows cannot bind the address of a group. So it
// also gets what is sent to the port by unicast.
func receive(group netip.AddrPort) (*net.UDPConn, error) {
	p, err := share.ListenPacket(context.Background(), "udp4", group.String())
	if err != nil {
		return nil, err
	}
	c := p.(*net.UDPConn)
	mreq := &syscall.IPMreq{Multiaddr: group.Addr().As4(), Interface: loopback}
	if err := set(c, syscall.SetsockoptIPMreq, syscall.IP_ADD_MEMBERSHIP, mreq); err != nil {
		c.Close()
		return nil, fmt.Errorf("join %v: %w", group.Addr(), err)
	}
	return c, nil
}

// next waits for a datagram of a sender. Others can send to the port.
func next(c *net.UDPConn, sender, text string) error {
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second)) // fails on a closed one
	for buf := make([]byte, 512); ; {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil || from.String() == sender && string(buf[:n]) == text {
			return err
		}
	}
}

// set sets an option of a socket by a function of package syscall. S is its type of a
// socket: int on Unix, syscall.Handle on Windows.
func set[S ~int | ~uintptr, V any](c *net.UDPConn, setsockopt func(s S, level, option int, value V) error, option int, value V) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := rc.Control(func(fd uintptr) { setErr = setsockopt(S(fd), syscall.IPPROTO_IP, option, value) }); err != nil {
		return err
	}
	return setErr
}
