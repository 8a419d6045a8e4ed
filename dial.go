package reuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Dial connects to raddr from the local address laddr ("" for none) like
// [net.Dialer.DialContext], with c's options on the socket. network is any that
// package net can dial. With port 0 or an empty port, as in "127.0.0.1:", the kernel
// chooses the port. A UDP socket then never gets the port of another socket, as in
// [Config.ListenPacket]. A TCP socket without a local address, or with DeferPort, can have
// the port of connections to other addresses, also with Exclusive.
//
// To dial from the port of a listener, the listener and the dialed socket must both
// have Port On. A listener with PortLB on FreeBSD has another option, and the kernel
// refuses the dial.
//
// The error is a [*net.OpError]. It wraps [ErrTupleInUse] if laddr has a port and the
// kernel reports a connection with the same four-tuple. Linux permits such connections
// of UDP sockets that share. It wraps [ErrSelfDial] if the socket connected to itself.
// Dial closes that socket. An error about an option contains an [*OptionError]. PortLB On
// is unsupported, and so is Exclusive On where the kernel does not guarantee it for
// a connected socket.
func (c Config) Dial(ctx context.Context, network, laddr, raddr string) (net.Conn, error) {
	for _, address := range []string{laddr, raddr} {
		if err := c.validate(network, address, true); err != nil {
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
	s := optionSetter{config: c, dial: true, setAfterBind: true}
	d, err := c.Dialer(d)
	if err != nil {
		return nil, opError("dial", network, err)
	}
	if d.Control != nil && udpBindsFirst && strings.HasPrefix(network, "udp") && addrPort(d.LocalAddr).Port() == 0 {
		d.Control = s.control // UDP addresses are tried one after the other
	}
	conn, err := d.DialContext(ctx, network, raddr)
	if err != nil {
		return nil, tupleError(err)
	}
	err = s.setPending(conn)
	if local := addrPort(conn.LocalAddr()); err == nil && local.IsValid() && local == addrPort(conn.RemoteAddr()) {
		err = ErrSelfDial
		if tcp, ok := conn.(*net.TCPConn); ok {
			// Without it the port stays in TIME_WAIT.
			if linger := tcp.SetLinger(0); linger != nil {
				err = fmt.Errorf("%w: %w", err, linger)
			}
		}
	}
	if err != nil {
		conn.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: err}
	}
	return conn, nil
}

// Dialer returns base with a Control function that sets c's options and then calls
// base's ControlContext or else Control. The other fields of base are unchanged. If an
// option that is On is no longer in force after base's function, the dial fails with an
// [*OptionError] that wraps [ErrConflict].
//
// Only [Config.Dial] reports [ErrTupleInUse] and [ErrSelfDial]. Only [Config.Dial]
// prevents Linux from giving a UDP socket with Addr or Port On the port of another
// sharing socket.
//
// The error is an [*OptionError]. Dialer fails if Check fails, or if an option is On
// that no dialed socket can have on this system: PortLB always, Exclusive where the
// kernel guarantees it for no dialed socket, and DeferPort unless base's LocalAddr is
// a [*net.TCPAddr] with port 0. If c changes nothing on this system, Dialer returns base
// unchanged.
func (c Config) Dialer(base net.Dialer) (net.Dialer, error) {
	if err := c.validate("", "", true); err != nil {
		return base, err
	}
	if local, ok := base.LocalAddr.(*net.TCPAddr); !ok || local == nil || local.Port != 0 {
		if c.DeferPort == On {
			return base, &OptionError{Op: "set", Option: DeferPort, Err: unsupportedReason("it requires a TCP dial with a local address and port 0")}
		}
		if c.DeferPort == Prefer {
			c.DeferPort = Default
		}
	}
	if c.changesNothing() {
		return base, nil
	}
	if next := base.ControlContext; next != nil { // base.Control is ignored, as in package net
		base.ControlContext = func(ctx context.Context, network, address string, rc syscall.RawConn) error {
			return c.controlFunc(true, func(network, address string, rc syscall.RawConn) error {
				return next(ctx, network, address, rc)
			})(network, address, rc)
		}
	} else {
		base.Control = c.controlFunc(true, base.Control)
	}
	return base, nil
}

// resolve resolves the local address of a Dial as package net does. ctx is for looking
// up a host name.
func resolve(ctx context.Context, network, address string) (net.Addr, error) {
	family, _, _ := strings.Cut(network, ":") // as in "ip4:icmp"
	host, port := address, ""
	switch family {
	case "unix", "unixgram", "unixpacket":
		return net.ResolveUnixAddr(network, address)
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		var err error
		if host, port, err = net.SplitHostPort(address); err != nil {
			return nil, err
		}
	case "ip", "ip4", "ip6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		ips, err := net.DefaultResolver.LookupIP(ctx, strings.NewReplacer("tcp", "ip", "udp", "ip").Replace(family), host)
		if err != nil {
			return nil, err
		}
		first := max(0, slices.IndexFunc(ips, func(ip net.IP) bool { return ip.To4() != nil })) // as package net prefers
		host = ips[first].String()
	}
	switch family[0] {
	case 't':
		return net.ResolveTCPAddr(network, net.JoinHostPort(host, port))
	case 'u':
		return net.ResolveUDPAddr(network, net.JoinHostPort(host, port))
	}
	return net.ResolveIPAddr(network, host)
}

// tupleError wraps ErrTupleInUse if connect reports that. With local port 0 the same
// errno means that the ephemeral ports are exhausted. From bind it means that the
// address is not one of this machine.
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
		// Linux reports the same if the machine has no source address for the remote
		// one. Connecting a UDP socket tests that without sending.
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

// addrPort returns a TCP or UDP address in comparable form, and the zero AddrPort for others.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

func isUnspecified(a net.Addr) bool {
	ip := addrPort(a).Addr().Unmap()
	return !ip.IsValid() || ip.IsUnspecified()
}
