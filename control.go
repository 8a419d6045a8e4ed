package reuse

import (
	"net"
	"net/netip"
	"strings"
	"syscall"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/sockopt"
)

// An entry is what a system has for one Option. Each reuse_*.go has a function
// table that returns the running system's.
type entry struct {
	level, name int     // the socket option; name 0: there is none
	clears      options // set or not, these get in its way and are cleared
	spares      options // of clears, what a TCP listener may keep
	tcpOnly     bool    // other sockets are not asked for it
	why         string  // name 0, and it has no verdict: the reason
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

// shared are the options that let two sockets have one address.
const shared options = 1<<Addr | 1<<Port | 1<<PortLB

// verdict says for which sockets an option keeps its promise here. Addr, Port and
// DeferPort promise what their option does; where there is none, nothing.
func verdict(o Option) semantics.Verdict {
	switch o {
	case PortLB:
		return semantics.PortLB(system())
	case Exclusive:
		return semantics.Exclusive(system())
	}
	e := table(o)
	if e.name == 0 {
		return semantics.Verdict{Why: e.why}
	}
	return semantics.Verdict{Holds: semantics.Listens | semantics.Dialed}
}

// possible tells whether a listener, or a dialed socket, of a network ("" for any)
// can have the options that are On, as far as that is known without a socket.
func (c Config) possible(network string, dial bool) error {
	for o := Addr; o <= lastOption; o++ {
		if c.get(o) == On {
			if err := refuse(o, verdict(o), network, dial); err != nil {
				return &OptionError{Op: "set", Option: o, Err: err}
			}
		}
	}
	return nil
}

// refuse returns why no listener, or no dialed socket, of a network can have an
// option with that verdict.
func refuse(o Option, v semantics.Verdict, network string, dial bool) error {
	switch {
	case strings.HasPrefix(network, "unix"):
		// AF_UNIX: SO_REUSEPORT is EOPNOTSUPP from Linux 6.13 on and was taken and
		// ignored before; SO_REUSEADDR is ignored.
		return refusal("it means nothing for a socket of the unix domain")
	case strings.HasPrefix(network, "ip"):
		return refusal("it means nothing for a raw IP socket")
	case v.Holds == semantics.Nowhere:
		return refusal(v.Why)
	case dial && o == PortLB:
		return refusal("connections are spread over listeners; for a dialed socket use Port")
	case dial && v.Holds&semantics.Dialed == 0:
		return refusal(v.Why)
	case o == DeferPort && strings.HasPrefix(network, "udp"):
		return refusal("a UDP socket has its port from the bind; DeferPort is for TCP")
	case !dial && o == DeferPort:
		return refusal("a listener has its port from the bind; DeferPort is for Dial")
	}
	return nil
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

// A setup puts a Config's options on one socket, or on one after the other:
// package net calls Control twice for a listener that falls back from MPTCP.
type setup struct {
	config  Config
	checked bool // the Config makes sense
	dial    bool
	late    bool // ListenPacket, Dial: share after the bind if need be

	network, address string

	err      error   // of the last socket
	firstErr error   // of the one before
	shares   options // what is still to be set after the bind
}

// control is a Control function.
func (s *setup) control(network, address string, rc syscall.RawConn) error {
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

// prepare sets and clears what is asked for, before the bind. What is cleared
// goes first: Windows refuses SO_EXCLUSIVEADDRUSE beside SO_REUSEADDR.
func (s *setup) prepare(fd uintptr) {
	var on, off options
	for o := Addr; o <= lastOption; o++ {
		setting := s.config.get(o)
		if setting == Off {
			off |= set(o)
		}
		if !setting.wanted() {
			continue
		}
		switch err := s.refuse(o, fd); {
		case err == nil:
			on |= set(o)
		case setting == On || !sockopt.Unsupported(err):
			s.err = &OptionError{Op: "set", Option: o, Err: err}
			return
		}
	}
	for o := Addr; o <= lastOption; o++ {
		if !on.has(o) {
			continue
		}
		e := table(o)
		if s.listensTCP() {
			e.clears &^= e.spares
		}
		off |= e.clears
		on &^= e.clears // only Prefer: what is On was refused
	}
	if s.late && on&shared != 0 && (s.dial || bindsFirst(s.network, s.address)) {
		preset, err := s.preset(fd)
		if err != nil {
			s.err = err
			return
		}
		s.shares = on&shared | preset&^off
		on, off = on&^shared, off|preset
	}
	if s.err = s.write(fd, off, 0); s.err == nil {
		s.err = s.write(fd, on, 1)
	}
}

// bindsFirst tells whether a socket is to bind before it shares: UDP with port 0
// on Linux. A sharing UDP socket that asks Linux for any port may get one that
// another sharing socket has: 272 to 289 of 4000 did (measured, 6.18). Shared
// after the bind, the port is its own, and later sockets still join it.
func bindsFirst(network, address string) bool {
	return udpSharesLate && strings.HasPrefix(network, "udp") && strings.HasSuffix(address, ":0")
}

// preset returns the sharing option that package net has set, as it does for
// a multicast address: SO_REUSEADDR.
func (s *setup) preset(fd uintptr) (options, error) {
	e := table(Addr)
	v, err := sockopt.Get(fd, e.level, e.name)
	if err != nil {
		return 0, &OptionError{Op: "get", Option: Addr, Err: err}
	}
	if v == 0 {
		return 0, nil
	}
	return set(Addr), nil
}

// share sets on a bound socket what was kept for after the bind.
func (s *setup) share(sc syscall.Conn) error {
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if err := rc.Control(func(fd uintptr) { s.err = s.write(fd, s.shares, 1) }); err != nil {
		return err
	}
	return s.err
}

// refuse returns why this socket cannot have an option, if the kernel need not
// be asked for that.
func (s *setup) refuse(o Option, fd uintptr) error {
	switch s.network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram", "unixpacket":
	default:
		if network, _, _ := strings.Cut(s.network, ":"); network != "ip" && network != "ip4" && network != "ip6" {
			return net.UnknownNetworkError(s.network)
		}
	}
	v, e := verdict(o), table(o)
	if err := refuse(o, v, s.network, s.dial); err != nil {
		return err
	}
	if v.Holds&semantics.Listens != semantics.Listens && !s.dial {
		p, err := s.place(fd)
		if err != nil {
			return err
		}
		if v.Holds&p == 0 {
			return refusal(v.Why)
		}
	}
	for other := Addr; e.clears != 0 && other <= lastOption; other++ {
		if e.clears.has(other) && s.config.get(other) == On {
			return refusal("not together with " + other.String())
		}
	}
	if !s.late && !s.dial && shared.has(o) && bindsFirst(s.network, s.address) {
		return refusal("for port 0 the kernel may choose a port that another socket shares; use Config.ListenPacket, or a port")
	}
	return nil
}

// place tells what kind of address the socket is about to bind. What does not
// parse counts as a wildcard, of which less is promised; and so does a multicast
// address, which sockets with SO_REUSEADDR share on OpenBSD and NetBSD.
func (s *setup) place(fd uintptr) (semantics.Places, error) {
	host, _, _ := net.SplitHostPort(s.address)
	ip, err := netip.ParseAddr(host)
	wildcard := err != nil || ip.IsUnspecified() || ip.IsMulticast()
	switch ipv4 := strings.HasSuffix(s.network, "4"); {
	case ipv4 && wildcard:
		return semantics.IPv4Any, nil
	case ipv4:
		return semantics.IPv4, nil
	case !wildcard:
		return semantics.IPv6, nil
	}
	// Package net calls a dual-stack socket "tcp6", too.
	v6only, err := sockopt.V6Only(fd)
	if err != nil {
		return 0, err
	}
	if v6only {
		return semantics.IPv6Any, nil
	}
	return semantics.DualAny, nil
}

func (s *setup) listensTCP() bool { return !s.dial && strings.HasPrefix(s.network, "tcp") }

// write sets the options of a set to a value, 0 or 1.
func (s *setup) write(fd uintptr, list options, value int) error {
	for o := Addr; list != 0 && o <= lastOption; o++ {
		if !list.has(o) {
			continue
		}
		e := table(o)
		if e.name == 0 || e.tcpOnly && !strings.HasPrefix(s.network, "tcp") {
			continue
		}
		err := sockopt.Set(fd, e.level, e.name, value)
		if err == nil {
			continue
		}
		op := "set"
		if value == 0 {
			op = "clear"
		}
		if s.config.get(o) != On && sockopt.Unsupported(err) {
			continue // Prefer, Off, and what is in the way of another
		}
		return &OptionError{Op: op, Option: o, Err: err}
	}
	return nil
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
