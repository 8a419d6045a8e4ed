package reuse

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// A sockOption is the socket option behind an Option. Each reuse_*.go has the method
// Option.sockOption for its systems.
type sockOption struct {
	level, name int     // name 0: the system has no such option
	conflicts   options // cleared when the Option is wanted, also if name is 0
	keepsAddr   bool    // a TCP listener keeps Addr, unless that admits a second listener
	tcpOnly     bool    // never set, cleared or read on other sockets
	writeOnly   bool    // not every version of the system can read it
	reason      string  // name 0: why, where support.go has no reason
}

// options is a set of Options.
type options uint8

func set(list ...Option) (s options) {
	for _, o := range list {
		s |= 1 << o
	}
	return s
}

func (s options) has(o Option) bool { return s&(1<<o) != 0 }

// sharing are the options that let two sockets have one address.
const sharing options = 1<<Addr | 1<<Port | 1<<PortLB

// validate returns why no listener, or no dialed socket, can have c, as far as a Config,
// a network and an address decide that. network is "" for any.
func (c Config) validate(network, address string, dial bool) error {
	if err := c.Check(); err != nil {
		return err
	}
	// The kernel would bind the part before the NUL, and package net would not remove that
	// file.
	if strings.HasPrefix(network, "unix") && !strings.HasPrefix(address, "@") && strings.IndexByte(address, 0) > 0 {
		return syscall.EINVAL
	}
	for o := Addr; o <= lastOption; o++ {
		if c.get(o) == On {
			if err := o.checkNetwork(network, dial); err != nil {
				return &OptionError{Op: "set", Option: o, Err: err}
			}
		}
	}
	return nil
}

// checkNetwork returns why no listener, or no dialed socket, of a network can have
// an option.
func (o Option) checkNetwork(network string, dial bool) error {
	dialedKinds := dialedTCP | dialedUDP
	switch {
	case strings.HasPrefix(network, "tcp"):
		dialedKinds = dialedTCP
	case strings.HasPrefix(network, "udp"):
		dialedKinds = dialedUDP
	case strings.HasPrefix(network, "unix"):
		// AF_UNIX: SO_REUSEPORT is EOPNOTSUPP from Linux 6.13 on, and had no effect
		// before. SO_REUSEADDR has no effect.
		return unsupportedReason("it has no effect on a Unix socket")
	case strings.HasPrefix(network, "ip"):
		return unsupportedReason("it has no effect on a raw IP socket")
	}
	switch s := o.support(); {
	case s.kinds == 0:
		return unsupportedReason(s.reason)
	case dial && o == PortLB:
		return unsupportedReason("connections are spread over listeners; for a dialed socket use Port")
	case dial && s.kinds&dialedKinds == 0:
		return unsupportedReason(s.reason)
	case o == DeferPort && dialedKinds == dialedUDP:
		return unsupportedReason("a UDP socket gets its port at bind; DeferPort is for TCP")
	case o == DeferPort && !dial:
		return unsupportedReason("a listener gets its port at bind; DeferPort is for Dial")
	}
	return nil
}

// changesNothing reports whether c sets and clears nothing on this system.
func (c Config) changesNothing() bool {
	for o := Addr; o <= lastOption; o++ {
		opt, setting := o.sockOption(), c.get(o)
		if setting != Default && opt.name != 0 || setting.wanted() && opt.conflicts != 0 {
			return false
		}
	}
	return true
}

// An optionSetter sets a Config's options on one socket, or on two in sequence: package
// net calls Control twice for a listener that falls back from MPTCP.
type optionSetter struct {
	config       Config
	dial         bool
	setAfterBind bool // the caller calls setPending

	network, address string

	err      error   // of the last socket
	firstErr error   // of the one before
	pending  options // set after the bind, by setPending
	cleared  options // contradict an option that is On
}

// control is a Control function.
func (s *optionSetter) control(network, address string, rc syscall.RawConn) error {
	if rc == nil {
		return syscall.EINVAL
	}
	s.network, s.address = network, address
	s.firstErr = s.err
	if s.err = s.config.Check(); s.err != nil {
		return s.err
	}
	// sockopt.Control would allocate more, for each listener.
	if err := rc.Control(func(fd uintptr) { s.err = s.prepare(fd) }); err != nil {
		s.err = err
	}
	return s.err
}

// controlFunc returns a Control function that sets c's options and then calls next, if
// next is not nil. After that it checks that every option that is On is still in force.
func (c Config) controlFunc(dial bool, next controlFunc) controlFunc {
	return func(network, address string, rc syscall.RawConn) error {
		s := optionSetter{config: c, dial: dial}
		if err := s.control(network, address, rc); err != nil || next == nil {
			return err
		}
		if err := next(network, address, rc); err != nil {
			return err
		}
		return sockopt.Control(rc, s.verify)
	}
}

type controlFunc = func(network, address string, rc syscall.RawConn) error

// prepare clears and sets options before the bind. It clears first, because Windows refuses
// SO_EXCLUSIVEADDRUSE on a socket that has SO_REUSEADDR.
func (s *optionSetter) prepare(fd uintptr) error {
	var on, off options
	s.pending, s.cleared = 0, 0
	for o := Addr; o <= lastOption; o++ {
		setting := s.config.get(o)
		if setting == Off {
			off |= set(o)
		}
		if !setting.wanted() {
			continue
		}
		switch err := s.checkSocket(o, fd); {
		case err == nil:
			on |= set(o)
		case setting == On || !sockopt.Unsupported(err):
			return &OptionError{Op: "set", Option: o, Err: err}
		case o.support().privileged != 0 && errors.Is(err, unsupportedReason(o.support().reason)):
			on |= set(o) // Prefer clears the sharing options, though that is no guarantee
		}
	}
	if s.setAfterBind && (s.dial || anyUDPPort(s.network, s.address)) {
		if err := s.postpone(on & sharing); err != nil {
			return err
		}
		on &^= sharing
	}
	for o := Addr; o <= lastOption; o++ {
		if !on.has(o) {
			continue
		}
		conflicts := o.sockOption().conflicts
		if conflicts.has(Addr) && o.sockOption().keepsAddr && !s.dial && strings.HasPrefix(s.network, "tcp") && !joinsListener() {
			conflicts &^= set(Addr)
		}
		if s.config.get(o) == On {
			s.cleared |= conflicts
		}
		off |= conflicts
		on &^= conflicts // only Prefer: On has failed in checkSocket
	}
	if s.pending != 0 {
		netDefault, err := Addr.read(fd) // package net sets it for a multicast address
		if err != nil {
			return err
		}
		if netDefault == On {
			s.pending |= set(Addr) &^ off
			off |= set(Addr)
		}
	}
	if err := s.write(fd, off, 0); err != nil {
		return err
	}
	return s.write(fd, on, 1)
}

// anyUDPPort reports whether a socket must bind before it shares: UDP with port 0 on
// Linux. Port 0 can return a port of another sharing socket to a sharing UDP socket, as
// for 272 to 289 of 4000 sockets (6.18). If the socket shares only after the bind, no other
// socket has its port, and later sockets still join it.
func anyUDPPort(network, address string) bool {
	return udpBindsFirst && strings.HasPrefix(network, "udp") && strings.HasSuffix(address, ":0")
}

// postpone leaves sharing options for setPending, if the kernel heeds options after the
// bind. Where it does not (gVisor), an unused port cannot be shared: On is unsupported, and
// Prefer has no effect.
func (s *optionSetter) postpone(list options) error {
	if list == 0 {
		return nil
	}
	err := heededAfterBind()
	if err == nil {
		s.pending = list
	}
	for o := Addr; err != nil && o <= lastOption; o++ {
		switch {
		case !list.has(o):
		case !isUnsupported(err):
			return &OptionError{Op: "probe", Option: o, Err: err}
		case s.config.get(o) == On:
			return &OptionError{Op: "set", Option: o, Err: err}
		}
	}
	return nil
}

// setPending sets the options that postpone has left on a bound socket.
func (s *optionSetter) setPending(sc any) error {
	if s.pending == 0 {
		return nil
	}
	rc, err := sc.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return sockopt.Control(rc, func(fd uintptr) error { return s.write(fd, s.pending, 1) })
}

// verify reads the options that are On, and those that were cleared for them.
func (s *optionSetter) verify(fd uintptr) error {
	for o := Addr; o <= lastOption; o++ {
		wantOn, opt := s.config.get(o) == On, o.sockOption()
		if wantOn {
			if err := s.checkSocket(o, fd); err != nil { // IPV6_V6ONLY and the device may have changed
				return &OptionError{Op: "set", Option: o, Err: err}
			}
		}
		if !wantOn && !s.cleared.has(o) || opt.name == 0 || opt.writeOnly {
			continue
		}
		v, err := sockopt.Get(fd, opt.level, opt.name)
		if err == nil && (v != 0) == wantOn || err != nil && !wantOn && sockopt.Unsupported(err) {
			continue
		}
		if err == nil {
			err = fmt.Errorf("%w: the caller's own Control function changed it", ErrConflict)
		}
		return &OptionError{Op: "get", Option: o, Err: err}
	}
	return nil
}

// checkSocket returns why this socket cannot have an option, as far as that is known
// without setting it.
func (s *optionSetter) checkSocket(o Option, fd uintptr) error {
	switch network, protocol, _ := strings.Cut(s.network, ":"); network {
	case "ip", "ip4", "ip6":
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram", "unixpacket":
		if protocol != "" {
			return net.UnknownNetworkError(s.network)
		}
	default:
		return net.UnknownNetworkError(s.network)
	}
	if err := o.checkNetwork(s.network, s.dial); err != nil {
		return err
	}
	if sup := o.support(); sup.kinds&listeners != listeners && !s.dial {
		kind, err := s.addrKind(fd)
		if err != nil {
			return err
		}
		if _, port, _ := net.SplitHostPort(s.address); sup.kinds&kind == 0 && !(sup.privileged&kind != 0 && isPrivileged(port)) {
			return unsupportedReason(sup.reason)
		}
	}
	for other := Addr; other <= lastOption; other++ {
		if o.sockOption().conflicts.has(other) && s.config.get(other) == On {
			return unsupportedReason("not together with " + other.String())
		}
	}
	if !s.setAfterBind && !s.dial && sharing.has(o) && anyUDPPort(s.network, s.address) {
		return fmt.Errorf("%w: for port 0 the kernel may choose a port that another socket shares; use Config.ListenPacket, or a port", os.ErrInvalid)
	}
	if o == Exclusive && s.config.Exclusive == On {
		// Sockets that are bound to different devices do not conflict on Linux. So
		// another user can bind the same address on another device, then on none (6.18).
		bound, err := sockopt.BoundToDevice(fd)
		if err == nil && bound {
			err = fmt.Errorf("%w: the socket is bound to a device", ErrConflict)
		}
		return err
	}
	return nil
}

// write sets the options of a set to a value, 0 or 1.
func (s *optionSetter) write(fd uintptr, list options, value int) error {
	for o := Addr; o <= lastOption; o++ {
		opt := o.sockOption()
		if !list.has(o) || opt.name == 0 || opt.tcpOnly && !strings.HasPrefix(s.network, "tcp") {
			continue
		}
		op, err := o.write(fd, value)
		if err == nil || s.config.get(o) != On && sockopt.Unsupported(err) {
			continue // Prefer, Off, and conflicts of another option
		}
		return &OptionError{Op: op, Option: o, Err: err}
	}
	return nil
}

// write sets an option to a value. It reads the option back until a change has had an
// effect once in this process, because setsockopt on gVisor succeeds for every unknown
// option. write returns the operation that failed: "set", "clear" or "get".
func (o Option) write(fd uintptr, value int) (op string, err error) {
	opt, known := o.sockOption(), probeResults[o].Load()
	trusted := opt.writeOnly || known != nil && *known == nil
	op = "set"
	if value == 0 {
		op = "clear"
		if !trusted {
			if v, err := sockopt.Get(fd, opt.level, opt.name); err != nil || v == 0 {
				return "get", err
			}
		}
	}
	if err := sockopt.Set(fd, opt.level, opt.name, value); err != nil || trusted {
		return op, err
	}
	v, err := sockopt.Get(fd, opt.level, opt.name)
	if err != nil {
		return "get", err
	}
	if (v != 0) != (value != 0) {
		return op, unsupportedReason("setsockopt succeeds without effect")
	}
	probeResults[o].Store(new(error))
	return op, nil
}

// read returns On or Off, or Default if the socket has no such option.
func (o Option) read(fd uintptr) (Setting, error) {
	opt := o.sockOption()
	if opt.name == 0 {
		return Default, nil
	}
	if opt.tcpOnly {
		if stream, err := sockopt.Stream(fd); err == nil && !stream {
			return Default, nil
		}
	}
	switch v, err := sockopt.Get(fd, opt.level, opt.name); {
	case err != nil && sockopt.Unsupported(err):
		return Default, nil
	case err != nil:
		return Default, &OptionError{Op: "get", Option: o, Err: err}
	case v != 0:
		return On, nil
	}
	return Off, nil
}

// addrKind returns the kind of a socket before its bind. An address that does not parse
// counts as a wildcard, for which less is guaranteed. So does a multicast address, for which
// package net binds the wildcard, and on Linux a link-local one: bind(2) also binds that
// socket to the device of the zone, see checkSocket.
func (s *optionSetter) addrKind(fd uintptr) (sockKinds, error) {
	host, _, _ := net.SplitHostPort(s.address)
	ip, err := netip.ParseAddr(host)
	wildcard := err != nil || ip.IsUnspecified() || ip.IsMulticast()
	kind := tcpDual
	switch ipv4 := strings.HasSuffix(s.network, "4"); {
	case ipv4 && wildcard:
		kind = tcp4Any
	case ipv4:
		kind = tcp4
	case isLinux && ip.IsLinkLocalUnicast():
		kind = tcp6Any
	case !wildcard:
		kind = tcp6
	default: // package net also calls a dual-stack socket "tcp6"
		v6only, err := sockopt.V6Only(fd)
		if err != nil {
			return 0, err
		}
		if v6only {
			kind = tcp6Any
		}
	}
	if strings.HasPrefix(s.network, "udp") {
		kind *= udp4 / tcp4
	}
	return kind, nil
}
