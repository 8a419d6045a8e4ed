//go:build unix || windows

// Package measure binds pairs of sockets, and reports what the kernel does with the second.
// Package semantics has what it should do. Tests and examples/matrix compare the two.
//
// [Measure] binds the first socket of a [Pair]. The second is bound by [Bind], or by another
// process that calls Bind.
//
// Measure finds a port that is free. Another process may take the port before Measure binds
// it. So outside a network namespace of its own, a caller measures again what differs.
package measure

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

	"example.com/reuse/internal/semantics"
)

// The addresses that pairs are made of.
var (
	Specific       = on("127.0.0.1")
	Specific2      = on("127.0.0.2")
	Wildcard       = on("0.0.0.0")
	Multicast      = on("224.1.2.3")
	Dual           = on("::")
	Wildcard6      = semantics.Binding{Addr: Dual.Addr, V6Only: true}
	Specific6      = on("::1")
	Mapped         = on("::ffff:127.0.0.1")
	MappedWildcard = on("::ffff:0.0.0.0")

	Addresses = []semantics.Binding{Specific, Specific2, Wildcard, Multicast, Dual, Wildcard6, Specific6, Mapped, MappedWildcard}
)

func on(ip string) semantics.Binding { return semantics.Binding{Addr: netip.MustParseAddr(ip)} }

// A Pair is two bindings of one port. In state Listening each listens after its bind.
type Pair [2]semantics.Binding

// Pairs returns pairs of addresses with every set of the system's options on each socket,
// for TCP bound and listening and for UDP.
func Pairs(s semantics.System, addresses []Pair) (list []Pair) {
	for _, kind := range []semantics.Binding{
		{Proto: semantics.TCP, State: semantics.Bound},
		{Proto: semantics.TCP, State: semantics.Listening},
		{Proto: semantics.UDP, State: semantics.Bound},
	} {
		for _, p := range addresses {
			for i := range p {
				p[i].Proto, p[i].State = kind.Proto, kind.State
			}
			for _, p[0].Options = range s.Subsets() {
				for _, p[1].Options = range s.Subsets() {
					list = append(list, p)
				}
			}
		}
	}
	return list
}

// Usable returns the pairs whose addresses a socket can be bound to here. It leaves out those
// of IPv6 without IPv6, 127.0.0.2 where it is not configured, and IPv6 sockets that take
// IPv4 where none do. An address that only TCP refuses is usable.
func Usable(list []Pair) []Pair {
	usable := map[semantics.Binding]bool{}
	for _, address := range Addresses {
		b := address
		b.Proto = semantics.UDP
		outcome, err := Bind(b, 0)
		usable[address] = err == nil && outcome == "ok"
	}
	return slices.DeleteFunc(slices.Clone(list), func(p Pair) bool {
		return slices.ContainsFunc(p[:], func(b semantics.Binding) bool {
			return !usable[semantics.Binding{Addr: b.Addr, V6Only: b.V6Only}]
		})
	})
}

// Bind binds and closes the second socket of a pair. The outcome is "ok",
// "b:bind:EADDRINUSE", "b:listen:...", "b:set-lb:...". An error is about the measurement,
// not about the socket.
func Bind(b semantics.Binding, port uint16) (outcome string, err error) {
	s, err := Open(b, port)
	if err != nil {
		return failed("b", err)
	}
	return "ok", syscall.Close(s)
}

// Measure binds both sockets of a pair, the second by a function such as Bind, and returns
// the outcome. That is "a:bind:EAFNOSUPPORT" and the like if the first cannot be bound.
func Measure(p Pair, bind func(b semantics.Binding, port uint16) (string, error)) (outcome string, err error) {
	port, err := freePort(p[0].Proto)
	if err != nil {
		return "", fmt.Errorf("no free port: %w", err)
	}
	s, err := Open(p[0], port)
	if err != nil {
		return failed("a", err)
	}
	defer func() { err = errors.Join(err, syscall.Close(s)) }()
	return bind(p[1], port)
}

// freePort returns a port that is free on every address.
func freePort(proto semantics.Proto) (uint16, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	if proto == semantics.UDP {
		c, err := lc.ListenPacket(context.Background(), "udp", ":0")
		if err != nil {
			return 0, err
		}
		return uint16(c.LocalAddr().(*net.UDPAddr).Port), c.Close()
	}
	l, err := lc.Listen(context.Background(), "tcp", ":0")
	if err != nil {
		return 0, err
	}
	return uint16(l.Addr().(*net.TCPAddr).Port), l.Close()
}

// Open makes a socket, sets its options, binds it, and listens if the binding says so. Its
// error is an os.SyscallError with the step that failed.
func Open(b semantics.Binding, port uint16) (Socket, error) {
	family, kind := syscall.AF_INET, syscall.SOCK_STREAM
	var to syscall.Sockaddr = &syscall.SockaddrInet6{Port: int(port), Addr: b.Addr.As16()}
	if b.Addr.Is4() {
		to = &syscall.SockaddrInet4{Port: int(port), Addr: b.Addr.As4()}
	} else {
		family = syscall.AF_INET6
	}
	if b.Proto == semantics.UDP {
		kind = syscall.SOCK_DGRAM
	}
	s, err := newSocket(family, kind)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if !b.Addr.Is4() {
		only := map[bool]int{true: 1}[b.V6Only]
		err = os.NewSyscallError("v6only", syscall.SetsockoptInt(s, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, only))
	}
	for _, o := range b.Options.List() {
		if err == nil {
			err = os.NewSyscallError("set-"+o.String(), syscall.SetsockoptInt(s, syscall.SOL_SOCKET, options[o], 1))
		}
	}
	if err == nil {
		err = os.NewSyscallError("bind", syscall.Bind(s, to))
	}
	if err == nil && b.Proto == semantics.TCP && b.State == semantics.Listening {
		err = os.NewSyscallError("listen", syscall.Listen(s, 1))
	}
	if err != nil {
		return 0, errors.Join(err, syscall.Close(s))
	}
	return s, nil
}

// newSocket makes a socket that a child which is started at the same time does not inherit.
func newSocket(family, kind int) (Socket, error) {
	if err := start(); err != nil {
		return 0, err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	s, err := syscall.Socket(family, kind, 0)
	if err == nil {
		syscall.CloseOnExec(s)
	}
	return s, err
}

// failed returns the outcome of a step that failed. Without an errno of the kernel it is an
// error.
func failed(who string, err error) (string, error) {
	var step *os.SyscallError
	if !errors.As(err, &step) || step.Syscall == "socket" || errnoName(err) == "" {
		return "", fmt.Errorf("%s: %w", who, err)
	}
	return who + ":" + step.Syscall + ":" + errnoName(err), nil
}

// Outcome writes an answer of package semantics as Measure writes what it saw.
// What is unknown is "".
func Outcome(a semantics.Answer) string {
	// The option that fails is the one that contradicts another.
	text := strings.NewReplacer("WSA", "", "setsockopt", "set-excl").Replace(a.String())
	switch {
	case a.Evidence.Kind == semantics.Unknown:
		return ""
	case a.OK():
		return text
	case a.First:
		return "a" + strings.TrimPrefix(text, "first")
	}
	return "b:" + text
}
