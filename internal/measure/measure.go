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

// An Address is one of the addresses that pairs are made of, by its name in rows.
type Address string

// The addresses.
const (
	Specific       Address = "specific"
	Specific2      Address = "specific2"
	Wildcard       Address = "wildcard"
	Multicast      Address = "multicast"
	Wildcard6      Address = "wildcard6" // IPv4 too
	Wildcard6Only  Address = "wildcard6only"
	Specific6      Address = "specific6"
	Mapped         Address = "mapped"
	MappedWildcard Address = "mapped-wildcard"
)

// Addresses are all of them.
var Addresses = []Address{Specific, Specific2, Wildcard, Multicast, Wildcard6, Wildcard6Only, Specific6, Mapped, MappedWildcard}

var ips = map[Address]string{
	Specific: "127.0.0.1", Specific2: "127.0.0.2", Wildcard: "0.0.0.0", Multicast: "224.1.2.3",
	Wildcard6: "::", Wildcard6Only: "::", Specific6: "::1",
	Mapped: "::ffff:127.0.0.1", MappedWildcard: "::ffff:0.0.0.0",
}

// IP returns the address itself, and whether its socket is IPv6 only.
func (a Address) IP() (ip netip.Addr, v6only bool) {
	return netip.MustParseAddr(ips[a]), a == Wildcard6Only
}

// A Pair is two bindings of one port. With State Listening both listen after
// their bind.
type Pair struct {
	Proto         semantics.Proto
	State         semantics.State // Bound or Listening
	First, Second Address
	A, B          semantics.Options // of the first, of the second
}

// Bindings returns the pair as package semantics asks for it.
func (p Pair) Bindings(firstUser, secondUser int) (first, second semantics.Binding) {
	one := func(a Address, o semantics.Options, user int) semantics.Binding {
		ip, only := a.IP()
		return semantics.Binding{Proto: p.Proto, State: p.State, Addr: ip, V6Only: only, Options: o, User: user}
	}
	return one(p.First, p.A, firstUser), one(p.Second, p.B, secondUser)
}

// String returns the pair on one line, for the message of a test.
func (p Pair) String() string {
	return fmt.Sprintf("%v %v %s %s, %v then %v", p.Proto, p.State, p.First, p.Second, p.A, p.B)
}

// Pairs returns the pairs that the tables of rows have: twelve of addresses, with
// every set of the system's options on each, for TCP bound and listening and for
// UDP. On Linux they are 576.
func Pairs(s semantics.System) []Pair {
	return pairs(s, [][2]Address{
		{Specific, Specific}, {Wildcard, Specific}, {Specific, Wildcard}, {Wildcard, Wildcard},
		{Multicast, Multicast}, {Specific, Specific2},
		{Wildcard6, Wildcard}, {Wildcard, Wildcard6}, {Wildcard6Only, Wildcard}, {Wildcard6, Wildcard6},
		{Wildcard6, Specific}, {Specific6, Wildcard6},
	})
}

// AllPairs returns the pairs of every address with every address. On Linux they
// are 3,888.
func AllPairs(s semantics.System) []Pair {
	var all [][2]Address
	for _, a := range Addresses {
		for _, b := range Addresses {
			all = append(all, [2]Address{a, b})
		}
	}
	return pairs(s, all)
}

func pairs(s semantics.System, addresses [][2]Address) (list []Pair) {
	sets := s.Subsets()
	for _, kind := range []Pair{
		{Proto: semantics.TCP, State: semantics.Bound},
		{Proto: semantics.TCP, State: semantics.Listening},
		{Proto: semantics.UDP, State: semantics.Bound},
	} {
		for _, ab := range addresses {
			for _, a := range sets {
				for _, b := range sets {
					list = append(list, Pair{kind.Proto, kind.State, ab[0], ab[1], a, b})
				}
			}
		}
	}
	return list
}

// Usable returns the pairs whose addresses a socket can be bound to here, and
// for each other address why not: there is no IPv6, 127.0.0.2 is not configured,
// IPv6 sockets never take IPv4. An address that only TCP refuses is usable.
func Usable(list []Pair) ([]Pair, map[Address]error) {
	missing := map[Address]error{}
	for _, a := range Addresses {
		ip, only := a.IP()
		s, err := open(semantics.Binding{Proto: semantics.UDP, Addr: ip, V6Only: only}, 0)
		if err == nil {
			err = syscall.Close(s)
		}
		if err != nil {
			missing[a] = fmt.Errorf("%s: %w", a, err)
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(p Pair) bool {
		return missing[p.First] != nil || missing[p.Second] != nil
	}), missing
}

// Bind binds and closes the second socket of a pair. The outcome is "ok",
// "b:bind:EADDRINUSE", "b:listen:...", "b:set-lb:...". An error is about the measurement,
// not about the socket.
func Bind(b semantics.Binding, port uint16) (outcome string, err error) {
	s, err := open(b, port)
	if err != nil {
		return failed("b", err)
	}
	return "ok", syscall.Close(s)
}

// Measure binds both sockets of a pair, the second by a function such as Bind, and returns
// the outcome. That is "a:bind:EAFNOSUPPORT" and the like if the first cannot be bound.
func Measure(p Pair, bind func(b semantics.Binding, port uint16) (string, error)) (outcome string, err error) {
	port, err := freePort(p.Proto)
	if err != nil {
		return "", fmt.Errorf("no free port: %w", err)
	}
	first, second := p.Bindings(0, 0)
	s, err := open(first, port)
	if err != nil {
		return failed("a", err)
	}
	defer func() { err = errors.Join(err, syscall.Close(s)) }()
	return bind(second, port)
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

// open makes a socket, sets its options, binds it, and listens if the binding says so. Its
// error is an os.SyscallError with the step that failed.
func open(b semantics.Binding, port uint16) (handle, error) {
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
func newSocket(family, kind int) (handle, error) {
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
	if a.Evidence.Kind == semantics.Unknown {
		return ""
	}
	if a.Err == "" {
		return "ok"
	}
	who, step := "b", a.Step
	if a.First {
		who = "a"
	}
	if step == "setsockopt" {
		step = "set-excl" // the one that contradicts another
	}
	return who + ":" + step + ":" + strings.TrimPrefix(a.Err, "WSA")
}

// A Row is a measured pair as the tables of rows write it.
type Row struct {
	OS      string   `json:"os"`
	Release string   `json:"release"`
	Proto   string   `json:"proto"`
	State   string   `json:"state"`
	First   Address  `json:"a_addr"`
	Second  Address  `json:"b_addr"`
	A       []string `json:"a_opts"`
	B       []string `json:"b_opts"`
	SameUID bool     `json:"same_uid"`
	Outcome string   `json:"outcome"`
}

// Row returns the row of a pair of one user.
func (p Pair) Row(os, release, outcome string) Row {
	names := func(all semantics.Options) []string {
		list := []string{} // [] in JSON, not null
		for _, o := range all.List() {
			list = append(list, o.String())
		}
		return list
	}
	return Row{os, release, p.Proto.String(), p.State.String(), p.First, p.Second, names(p.A), names(p.B), true, outcome}
}
