package reuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// Dial connects to raddr from the local address laddr ("" for none) like
// [net.Dialer.DialContext], with c's options on the socket. network is any that
// package net can dial; a port 0 or an empty one, as in "127.0.0.1:", lets the
// kernel choose. As with ListenPacket, a UDP socket gets no port then that another
// socket has.
//
// To dial from the port of a listener, the listener and the dialed socket must
// both have Port On; where that is SO_REUSEPORT_LB to the listener, as with
// PortLB on FreeBSD, the kernel refuses the dial.
//
// The error is a [*net.OpError]. It wraps [ErrTupleInUse] if laddr has a port and
// the kernel said that there is a connection between these two addresses already
// (Linux permits that for UDP sockets that share, and says nothing), [ErrSelfDial] if
// the socket was connected to itself, which is closed then. One about an option
// contains an [*OptionError]: PortLB On is refused, and so is Exclusive On where
// the kernel does not keep others from the address of a connected socket.
func (c Config) Dial(ctx context.Context, network, laddr, raddr string) (net.Conn, error) {
	for _, address := range []string{laddr, raddr} {
		if err := c.ready(network, address, true); err != nil {
			return nil, opError("dial", network, err)
		}
	}
	var d net.Dialer
	if laddr != "" {
		local, err := resolve(ctx, network, laddr)
		if err != nil {
			return nil, opError("dial", network, err)
		}
		d.LocalAddr = local
	}
	s := optionSetter{config: c, checked: true, dial: true, setAfterBind: true}
	bindsFirst := udpBindsFirst && strings.HasPrefix(network, "udp") && addrPort(d.LocalAddr).Port() == 0
	d, err := c.Dialer(d)
	if err != nil {
		return nil, opError("dial", network, err)
	}
	if bindsFirst && d.Control != nil {
		d.Control = s.control // UDP addresses are tried one after the other
	}
	conn, err := d.DialContext(ctx, network, raddr)
	if err != nil {
		return nil, tupleError(err)
	}
	if s.pending != 0 {
		if err := s.setPending(conn.(syscall.Conn)); err != nil {
			conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: err}
		}
	}
	if local := addrPort(conn.LocalAddr()); local.IsValid() && local == addrPort(conn.RemoteAddr()) {
		err := ErrSelfDial
		if tcp, ok := conn.(*net.TCPConn); ok {
			// Without it the port stays in TIME_WAIT.
			if linger := tcp.SetLinger(0); linger != nil {
				err = fmt.Errorf("%w: %w", err, linger)
			}
		}
		conn.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: err}
	}
	return conn, nil
}

// Dialer returns base with a Control function that sets c's options and then calls
// base's ControlContext or else Control, if it has one. Everything else of base is
// kept. If an option that is On is not in force any more after that, the error is an
// [*OptionError] that wraps [ErrConflict]. A connection to itself and a four-tuple
// that exists already are told by [Config.Dial] only; and with Addr or Port On, Linux
// may give a UDP socket without a local port one that another sharing socket has,
// against which only [Config.Dial] helps.
//
// It fails with an [*OptionError] if Check does, or if an option is On that no
// dialed socket can have on this system: PortLB always, Exclusive where
// [Config.Dial] always refuses it, and DeferPort unless base's LocalAddr is a
// [*net.TCPAddr] with port 0. If there is nothing to be set on this system, it
// returns base as it is.
func (c Config) Dialer(base net.Dialer) (net.Dialer, error) {
	if err := c.ready("", "", true); err != nil {
		return base, err
	}
	if local, ok := base.LocalAddr.(*net.TCPAddr); !ok || local == nil || local.Port != 0 {
		if c.DeferPort == On {
			return base, &OptionError{Op: "set", Option: DeferPort, Err: unsupportedReason("it takes a TCP dial with a local address and port 0")}
		}
		if c.DeferPort == Prefer {
			c.DeferPort = Default
		}
	}
	if c.idle() {
		return base, nil
	}
	switch next, nextContext := base.Control, base.ControlContext; {
	case nextContext != nil: // base.Control is ignored, as in package net
		base.ControlContext = func(ctx context.Context, network, address string, rc syscall.RawConn) error {
			s := optionSetter{config: c, dial: true}
			return s.controlThen(network, address, rc, func() error { return nextContext(ctx, network, address, rc) })
		}
	case next != nil:
		base.Control = func(network, address string, rc syscall.RawConn) error {
			s := optionSetter{config: c, dial: true}
			return s.controlThen(network, address, rc, func() error { return next(network, address, rc) })
		}
	default:
		base.Control = c.dialControl
	}
	return base, nil
}

// dialControl is the Control function of a Dialer. A dual-stack dial calls it
// from two goroutines, so each call has an optionSetter of its own.
func (c Config) dialControl(network, address string, rc syscall.RawConn) error {
	s := optionSetter{config: c, dial: true}
	return s.control(network, address, rc)
}

// resolve is net.ResolveTCPAddr and the like, with a context.
func resolve(ctx context.Context, network, address string) (net.Addr, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
	case "unix", "unixgram", "unixpacket":
		return net.ResolveUnixAddr(network, address)
	default:
		ip, _, _ := strings.Cut(network, ":") // as in "ip4:icmp"
		if ip != "ip" && ip != "ip4" && ip != "ip6" {
			return nil, net.UnknownNetworkError(network)
		}
		a, err := lookup(ctx, ip, address)
		return &net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()}, err
	}
	local, err := netip.ParseAddrPort(address)
	if err != nil || !fits(local.Addr(), network) {
		if local, err = lookupPort(ctx, network, address); err != nil {
			return nil, err
		}
	}
	if network[0] == 'u' {
		return net.UDPAddrFromAddrPort(local), nil
	}
	return net.TCPAddrFromAddrPort(local), nil
}

// fits tells whether a TCP or UDP network has an address, which needs no resolver then.
// What has a zone is left to the resolver: netip and net cut "[::%]]:0" differently.
func fits(ip netip.Addr, network string) bool {
	if ip.Zone() != "" {
		return false
	}
	switch network[len("tcp"):] {
	case "4":
		return ip.Is4()
	case "6":
		return ip.Is6() && !ip.Is4In6()
	}
	return !ip.Is4In6()
}

// lookupPort asks the resolver for a host and a service.
func lookupPort(ctx context.Context, network, address string) (netip.AddrPort, error) {
	var none netip.AddrPort
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return none, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return none, err
	}
	ip, err := lookup(ctx, "ip"+network[len("tcp"):], host)
	if err != nil {
		return none, err
	}
	return netip.AddrPortFrom(ip, uint16(port)), nil
}

// lookup returns the address of a host, of which package net prefers IPv4.
func lookup(ctx context.Context, network, host string) (netip.Addr, error) {
	if host == "" {
		return netip.Addr{}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() {
			return ip, nil
		}
	}
	literal, err := netip.ParseAddr(host) // LookupNetIP loses the zone
	if err != nil {
		return ips[0], nil
	}
	return literal, nil
}

// tupleError wraps ErrTupleInUse where connect has said so. With port 0 on the
// local side the same errno means that the ephemeral ports are used up, and from
// bind that the address is not this machine's.
func tupleError(err error) error {
	var op *net.OpError
	var sys *os.SyscallError
	if !errors.As(err, &op) || !errors.As(err, &sys) || (sys.Syscall != "connect" && sys.Syscall != "connectex") {
		return err
	}
	if !errors.Is(sys, errTupleInUse) || addrPort(op.Source).Port() == 0 || addrPort(op.Addr).Port() == 0 {
		return err
	}
	if isUnspecified(op.Source) {
		// Linux says the same if there is no address to reach the other one from.
		// A UDP socket that is connected there finds that out and sends nothing.
		udp, err := net.Dial("udp", op.Addr.String())
		if errors.Is(err, errTupleInUse) {
			return op
		}
		if err == nil {
			udp.Close()
		}
	}
	tuple := *op
	tuple.Err = fmt.Errorf("%w: %w", ErrTupleInUse, op.Err)
	return &tuple
}

// addrPort returns a TCP or UDP address in comparable form.
func addrPort(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return p
}

func isUnspecified(a net.Addr) bool {
	ip := addrPort(a).Addr().Unmap()
	return !ip.IsValid() || ip.IsUnspecified()
}
