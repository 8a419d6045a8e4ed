package reuse

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// An entry is what a system has for one Option. Each reuse_*.go has a function
// table that returns the running system's.
type entry struct {
	level, name int     // the socket option; name 0: there is none
	clears      options // set or not, these get in its way and are cleared
	keepsAddr   bool    // of clears, a TCP listener keeps Addr if that admits no other
	tcpOnly     bool    // other sockets are not asked for it
	unreadable  bool    // setsockopt is believed, as not every version can read it
	why         string  // name 0, and promise.go does not know it: the reason
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

// possible reports what is On and what no listener, or no dialed socket, of a
// network ("" for any) can have, as far as that is known without a socket.
func (c Config) possible(network string, dial bool) error {
	for o := Addr; o <= lastOption; o++ {
		if c.get(o) == On {
			if err := checkNetwork(o, network, dial); err != nil {
				return &OptionError{Op: "set", Option: o, Err: err}
			}
		}
	}
	return nil
}

// checkNetwork returns why no listener, or no dialed socket, of a network can have
// an option.
func checkNetwork(o Option, network string, dial bool) error {
	p := promised(o)
	switch {
	case strings.HasPrefix(network, "unix"):
		// AF_UNIX: SO_REUSEPORT is EOPNOTSUPP from Linux 6.13 on and had no effect
		// before; SO_REUSEADDR has none.
		return unsupportedReason("it means nothing for a socket of the unix domain")
	case strings.HasPrefix(network, "ip"):
		return unsupportedReason("it means nothing for a raw IP socket")
	case p.holds == 0:
		return unsupportedReason(p.why)
	case dial && o == PortLB:
		return unsupportedReason("connections are spread over listeners; for a dialed socket use Port")
	case dial && p.holds&dialedKinds(network) == 0:
		return unsupportedReason(p.why)
	case o == DeferPort && strings.HasPrefix(network, "udp"):
		return unsupportedReason("a UDP socket has its port from the bind; DeferPort is for TCP")
	case !dial && o == DeferPort:
		return unsupportedReason("a listener has its port from the bind; DeferPort is for Dial")
	}
	return nil
}

// dialedKinds returns the kinds of the dialed sockets of a network.
func dialedKinds(network string) sockKinds {
	switch {
	case strings.HasPrefix(network, "tcp"):
		return dialedTCP
	case strings.HasPrefix(network, "udp"):
		return dialedUDP
	}
	return dialed
}

// idle tells whether there is nothing to be set or cleared on this system.
func (c Config) idle() bool {
	for o := Addr; o <= lastOption; o++ {
		if c.get(o) == Default {
			continue
		}
		if e := table(o); e.name != 0 || e.clears != 0 && c.get(o).wanted() {
			return false
		}
	}
	return true
}

// An optionSetter puts a Config's options on one socket, or on one after the other:
// package net calls Control twice for a listener that falls back from MPTCP.
type optionSetter struct {
	config       Config
	checked      bool // the Config makes sense
	dial         bool
	setAfterBind bool // ListenPacket, Dial: a sharing option may be set after the bind

	network, address string

	err      error   // of the last socket
	firstErr error   // of the one before
	pending  options // to be set after the bind
	cleared  options // what an option that is On must not find set
}

// control is a Control function.
func (s *optionSetter) control(network, address string, rc syscall.RawConn) error {
	if rc == nil {
		return syscall.EINVAL
	}
	s.network, s.address = network, address
	s.firstErr, s.err = s.err, nil
	if !s.checked {
		s.err = s.config.Check()
	}
	if s.err != nil {
		return s.err
	}
	if err := rc.Control(s.prepare); err != nil {
		s.err = err
	}
	return s.err
}

// controlThen is a Control function that runs the caller's own after ours, and
// checks that what is On is still in force.
func (s *optionSetter) controlThen(network, address string, rc syscall.RawConn, next func() error) error {
	if err := s.control(network, address, rc); err != nil {
		return err
	}
	if err := next(); err != nil {
		return err
	}
	if err := rc.Control(s.verify); err != nil {
		return err
	}
	return s.err
}

// prepare sets and clears what is asked for, before the bind. It clears first: Windows
// refuses SO_EXCLUSIVEADDRUSE beside SO_REUSEADDR.
func (s *optionSetter) prepare(fd uintptr) {
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
			s.err = &OptionError{Op: "set", Option: o, Err: err}
			return
		case promised(o).privileged != 0 && errors.Is(err, unsupportedReason(promised(o).why)):
			on |= set(o) // Prefer clears what shares, though other users can get around that
		}
	}
	if on&sharing != 0 && s.bindsFirst() {
		if on, s.err = s.afterBind(on); s.err != nil {
			return
		}
	}
	for o := Addr; o <= lastOption; o++ {
		if !on.has(o) {
			continue
		}
		clears := table(o).clears
		if clears.has(Addr) && table(o).keepsAddr && !s.dial && strings.HasPrefix(s.network, "tcp") && !joinsListener() {
			clears &^= set(Addr)
		}
		if s.config.get(o) == On {
			s.cleared |= clears
		}
		off |= clears
		on &^= clears // only Prefer: what is On was refused
	}
	if s.pending != 0 {
		preset, err := netDefault(fd)
		if err != nil {
			s.err = err
			return
		}
		s.pending |= preset &^ off
		on, off = on&^s.pending, off|preset
	}
	if s.err = s.write(fd, off, 0); s.err == nil {
		s.err = s.write(fd, on, 1)
	}
}

// bindsFirst reports whether a socket must bind before it shares: UDP with port 0
// on Linux. A sharing UDP socket that asks Linux for any port may get one that
// another sharing socket has: 272 to 289 of 4000 did (measured, 6.18). Shared
// after the bind, the port is its own, and later sockets still join it.
func (s *optionSetter) bindsFirst() bool {
	return s.setAfterBind && (s.dial || anyUDPPort(s.network, s.address))
}

func anyUDPPort(network, address string) bool {
	return udpBindsFirst && strings.HasPrefix(network, "udp") && strings.HasSuffix(address, ":0")
}

// afterBind leaves the sharing options for after the bind, if the kernel heeds them
// then. Where it does not (gVisor), a port that no other socket has cannot be shared:
// what is On is unsupported, and what is preferred is dropped.
func (s *optionSetter) afterBind(on options) (options, error) {
	counts, err := countsAfterBind()
	for o := Addr; o <= lastOption; o++ {
		if !on.has(o) || !sharing.has(o) {
			continue
		}
		if err != nil {
			return on, &OptionError{Op: "probe", Option: o, Err: err}
		}
		if !counts && s.config.get(o) == On {
			return on, &OptionError{Op: "set", Option: o, Err: unsupportedReason("the kernel may choose a port that another socket shares, and ignores what is set after the bind; use a port")}
		}
	}
	if counts {
		s.pending = on & sharing
		return on, nil
	}
	return on &^ sharing, nil
}

// netDefault returns the sharing option that package net has set, as it does for
// a multicast address: SO_REUSEADDR.
func netDefault(fd uintptr) (options, error) {
	e := table(Addr)
	v, err := sockopt.Get(fd, e.level, e.name)
	switch {
	case err != nil && !sockopt.Unsupported(err):
		return 0, &OptionError{Op: "get", Option: Addr, Err: err}
	case err != nil || v == 0:
		return 0, nil
	}
	return set(Addr), nil
}

// setPending sets on a bound socket what was left for after the bind.
func (s *optionSetter) setPending(sc syscall.Conn) error {
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if err := rc.Control(func(fd uintptr) { s.err = s.write(fd, s.pending, 1) }); err != nil {
		return err
	}
	return s.err
}

// verify reads again what is On, and what had to be cleared for that.
func (s *optionSetter) verify(fd uintptr) {
	for o := Addr; o <= lastOption; o++ {
		want := 0
		if s.config.get(o) == On {
			want = 1
			if err := s.checkSocket(o, fd); err != nil { // IPV6_V6ONLY and the device may be others
				s.err = &OptionError{Op: "set", Option: o, Err: err}
				return
			}
		} else if !s.cleared.has(o) {
			continue
		}
		e := table(o)
		if e.name == 0 || e.unreadable {
			continue
		}
		v, err := sockopt.Get(fd, e.level, e.name)
		if err == nil && (v != 0) == (want != 0) {
			continue
		}
		if err == nil {
			err = fmt.Errorf("%w: the caller's own Control function changed it", ErrConflict)
		} else if want == 0 && sockopt.Unsupported(err) {
			continue
		}
		s.err = &OptionError{Op: "get", Option: o, Err: err}
		return
	}
}

// checkSocket returns why this socket cannot have an option, if the kernel need not
// be asked for that.
func (s *optionSetter) checkSocket(o Option, fd uintptr) error {
	switch s.network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram", "unixpacket":
	default:
		if network, _, _ := strings.Cut(s.network, ":"); network != "ip" && network != "ip4" && network != "ip6" {
			return net.UnknownNetworkError(s.network)
		}
	}
	if err := checkNetwork(o, s.network, s.dial); err != nil {
		return err
	}
	if p := promised(o); p.holds&listeners != listeners && !s.dial {
		kind, err := s.addrKind(fd)
		if err != nil {
			return err
		}
		if _, port, _ := net.SplitHostPort(s.address); p.holds&kind == 0 && !(p.privileged&kind != 0 && isPrivileged(port)) {
			return unsupportedReason(p.why)
		}
	}
	clears := table(o).clears
	for other := Addr; clears != 0 && other <= lastOption; other++ {
		if clears.has(other) && s.config.get(other) == On {
			return unsupportedReason("not together with " + other.String())
		}
	}
	if !s.setAfterBind && !s.dial && sharing.has(o) && anyUDPPort(s.network, s.address) {
		return misuse("for port 0 the kernel may choose a port that another socket shares; use Config.ListenPacket, or a port")
	}
	if o == Exclusive && s.config.Exclusive == On {
		// Sockets that are bound to different devices do not conflict on Linux, and so
		// another user can bind beside this one, then on no device (measured, 6.18).
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
	for o := Addr; list != 0 && o <= lastOption; o++ {
		if !list.has(o) {
			continue
		}
		e := table(o)
		if e.name == 0 || e.tcpOnly && !strings.HasPrefix(s.network, "tcp") {
			continue
		}
		op, err := e.write(fd, o, value)
		if err == nil || s.config.get(o) != On && sockopt.Unsupported(err) {
			continue // Prefer, Off, and what is in the way of another
		}
		return &OptionError{Op: op, Option: o, Err: err}
	}
	return nil
}

// write sets an option to a value and, until a change of it has been seen in this
// process, reads it back: gVisor's setsockopt succeeds for options that it does not
// have. It returns what failed: "set", "clear" or "get".
func (e entry) write(fd uintptr, o Option, value int) (op string, err error) {
	shown := e.unreadable || isShown(o)
	op = "set"
	if value == 0 {
		op = "clear"
		if !shown {
			if v, err := sockopt.Get(fd, e.level, e.name); err != nil || v == 0 {
				return "get", err
			}
		}
	}
	if err := sockopt.Set(fd, e.level, e.name, value); err != nil || shown {
		return op, err
	}
	v, err := sockopt.Get(fd, e.level, e.name)
	if err != nil {
		return "get", err
	}
	if (v != 0) != (value != 0) {
		return op, unsupportedReason("setsockopt succeeds without effect")
	}
	keep(o, nil)
	return op, nil
}

// addrKind returns what kind of socket is about to be bound. What does not parse
// counts as a wildcard, of which less is promised; so does a multicast address, for
// which package net binds the wildcard.
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
	case !wildcard:
		kind = tcp6
	default: // package net calls a dual-stack socket "tcp6" too
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

// inspect reads the options of a socket.
func inspect(fd uintptr) (Config, error) {
	var c Config
	for o := Addr; o <= lastOption; o++ {
		e := table(o)
		if e.name == 0 {
			continue
		}
		if e.tcpOnly {
			if stream, err := sockopt.Stream(fd); err == nil && !stream {
				continue
			}
		}
		v, err := sockopt.Get(fd, e.level, e.name)
		switch {
		case err != nil && sockopt.Unsupported(err):
		case err != nil:
			return Config{}, &OptionError{Op: "get", Option: o, Err: err}
		case v != 0:
			c.set(o, On)
		default:
			c.set(o, Off)
		}
	}
	return c, nil
}
