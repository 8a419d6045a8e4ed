// Package measure binds pairs of sockets for real, and says what the kernel made
// of the second. What it should have made of it is in package semantics. It is for the
// tests that compare the two, and for examples/matrix, which shows both.
//
// A [Pair] is two addresses, a protocol, the state of the first and the options of
// both: [Pairs] and [AllPairs] make them, [Usable] takes out those whose addresses this
// machine lacks. [Measure] binds the first in this process; the second is made by
// a [Binder]: by this process ([Here]), or by another one, which may be another
// user's, that runs [Serve] ([Peer]).
//
//	for _, p := range measure.Pairs(system) {
//		outcome, err := measure.Measure(ctx, p, measure.Here{})
//		...
//		first, second := p.Bindings(uid, uid)
//		if want := measure.Outcome(system.Second(first, second)); outcome != want { ... }
//	}
//
// A port that is free everywhere is looked for before each pair and then used;
// another process may take it in between. So whoever finds a difference outside a
// network namespace of their own measures it again before they report it.
package measure

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

// An Address is one of the addresses that pairs are made of, by its name in rows.
type Address string

// The addresses.
const (
	Specific      Address = "specific"      // 127.0.0.1
	Specific2     Address = "specific2"     // 127.0.0.2
	Wildcard      Address = "wildcard"      // 0.0.0.0
	Multicast     Address = "multicast"     // 224.1.2.3
	Wildcard6     Address = "wildcard6"     // ::, IPv4 too
	Wildcard6Only Address = "wildcard6only" // ::, IPv6 only
	Specific6     Address = "specific6"     // ::1

	Mapped         Address = "mapped"          // ::ffff:127.0.0.1
	MappedWildcard Address = "mapped-wildcard" // ::ffff:0.0.0.0
)

// Addresses returns all of them.
func Addresses() []Address {
	return []Address{Specific, Specific2, Wildcard, Multicast, Wildcard6, Wildcard6Only, Specific6, Mapped, MappedWildcard}
}

// IP returns the address itself, and whether its socket is IPv6 only.
func (a Address) IP() (ip netip.Addr, v6only bool) {
	switch a {
	case Specific:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), false
	case Specific2:
		return netip.AddrFrom4([4]byte{127, 0, 0, 2}), false
	case Wildcard:
		return netip.IPv4Unspecified(), false
	case Multicast:
		return netip.AddrFrom4([4]byte{224, 1, 2, 3}), false
	case Wildcard6:
		return netip.IPv6Unspecified(), false
	case Wildcard6Only:
		return netip.IPv6Unspecified(), true
	case Specific6:
		return netip.IPv6Loopback(), true
	case Mapped:
		return netip.AddrFrom16([16]byte{10: 0xff, 0xff, 127, 0, 0, 1}), false
	case MappedWildcard:
		return netip.AddrFrom16([16]byte{10: 0xff, 0xff}), false
	}
	return netip.Addr{}, false
}

// IPv6 says that its socket is one of IPv6.
func (a Address) IPv6() bool {
	ip, _ := a.IP()
	return ip.Is6()
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
	for _, a := range Addresses() {
		for _, b := range Addresses() {
			all = append(all, [2]Address{a, b})
		}
	}
	return pairs(s, all)
}

func pairs(s semantics.System, addresses [][2]Address) []Pair {
	var list []Pair
	sets := s.Subsets()
	for _, kind := range []Pair{
		{Proto: semantics.TCP, State: semantics.Bound},
		{Proto: semantics.TCP, State: semantics.Listening},
		{Proto: semantics.UDP, State: semantics.Bound},
	} {
		for _, ab := range addresses {
			for _, a := range sets {
				for _, b := range sets {
					p := kind
					p.First, p.Second, p.A, p.B = ab[0], ab[1], a, b
					list = append(list, p)
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
	for _, a := range Addresses() {
		if err := try(a); err != nil {
			missing[a] = err
		}
	}
	usable := slices.DeleteFunc(slices.Clone(list), func(p Pair) bool {
		return missing[p.First] != nil || missing[p.Second] != nil
	})
	return usable, missing
}

func try(a Address) error {
	ip, only := a.IP()
	s, step, err := bound(Pair{Proto: semantics.UDP, State: semantics.Bound}, ip, only, 0, 0)
	if err != nil {
		return fmt.Errorf("%s (%v): %w", a, ip, during(step, err))
	}
	return s.close()
}

// A Binder makes the second binding of a pair at a port, closes it again, and
// returns the outcome: "ok", "b:bind:EADDRINUSE", "b:listen:...", "b:set-lb:...".
// An error is about the measurement, not about the pair.
type Binder interface {
	Bind(ctx context.Context, p Pair, port uint16) (outcome string, err error)
}

// Here is this process.
type Here struct{}

// Bind binds and closes a socket of this process.
func (Here) Bind(ctx context.Context, p Pair, port uint16) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ip, only := p.Second.IP()
	s, step, err := bound(p, ip, only, p.B, port)
	if err != nil {
		return failed("b", step, err)
	}
	return "ok", s.close()
}

// Measure binds both of a pair and returns the outcome, as Binder does, or
// "a:bind:EAFNOSUPPORT" and the like if it is the first that cannot be bound.
func Measure(ctx context.Context, p Pair, second Binder) (outcome string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if p.Proto != semantics.TCP && p.Proto != semantics.UDP || p.State != semantics.Bound && p.State != semantics.Listening {
		return "", fmt.Errorf("measure %v: no such pair", p)
	}
	port, err := freePort(p.Proto)
	if err != nil {
		return "", fmt.Errorf("no free port: %w", err)
	}
	ip, only := p.First.IP()
	s, step, err := bound(p, ip, only, p.A, port)
	if err != nil {
		return failed("a", step, err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return second.Bind(ctx, p, port)
}

// bound makes a socket, sets its options, binds it, and listens if the pair says
// so. It returns the step that failed.
func bound(p Pair, ip netip.Addr, only bool, options semantics.Options, port uint16) (s socket, step string, err error) {
	if !ip.IsValid() {
		return s, "address", errors.New("no such address")
	}
	s, err = open(p.Proto, ip.Is6())
	if err != nil {
		return s, "socket", err
	}
	step, err = func() (string, error) {
		if ip.Is6() {
			if err := s.v6only(only); err != nil {
				return "v6only", err
			}
		}
		for _, o := range options.List() {
			if err := s.set(o); err != nil {
				return "set-" + o.String(), err
			}
		}
		if err := s.bind(ip, port); err != nil {
			return "bind", err
		}
		if p.Proto == semantics.TCP && p.State == semantics.Listening {
			return "listen", s.listen()
		}
		return "", nil
	}()
	if err != nil {
		return s, step, errors.Join(err, s.close())
	}
	return s, "", nil
}

// failed is the outcome of a step that failed. What the kernel does not say
// by an errno is an error.
func failed(who, step string, err error) (string, error) {
	name := errnoName(err)
	if name == "" || step == "socket" || step == "address" {
		return "", fmt.Errorf("%s: %w", who, during(step, err))
	}
	return who + ":" + step + ":" + strings.TrimPrefix(name, "WSA"), nil
}

// during says at which step an error came, unless the error does.
func during(step string, err error) error {
	var sys *os.SyscallError
	if errors.As(err, &sys) && sys.Syscall == step {
		return err
	}
	return fmt.Errorf("%s: %w", step, err)
}

// freePort returns a port that is free on every address.
func freePort(proto semantics.Proto) (port uint16, err error) {
	p := Pair{Proto: proto, State: semantics.Bound}
	const attempts = 64
	for range attempts {
		var s4 socket
		s4, _, err = bound(p, netip.IPv4Unspecified(), false, 0, 0)
		if err != nil {
			return 0, err
		}
		port, err = s4.port()
		if err == nil {
			// With IPv6 only this does not meet s4's; without IPv6 there is
			// nothing to find out.
			var s6 socket
			var step string
			s6, step, err = bound(p, netip.IPv6Unspecified(), true, 0, port)
			switch {
			case err == nil:
				err = s6.close()
			case step != "bind" || errnoName(err) != inUse:
				err = nil
			}
		}
		err = errors.Join(err, s4.close())
		if err == nil {
			return port, nil
		}
	}
	return 0, err
}

// Outcome writes an answer of package semantics as Measure writes what it saw.
// What is not known is "".
func Outcome(a semantics.Answer) string {
	if a.Known.How == semantics.Unknown {
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

// Row returns the row of a pair with an outcome.
func (p Pair) Row(os, release string, sameUID bool, outcome string) Row {
	names := func(all semantics.Options) []string {
		list := []string{} // [] in JSON, not null
		for _, o := range all.List() {
			list = append(list, o.String())
		}
		return list
	}
	return Row{os, release, p.Proto.String(), p.State.String(), p.First, p.Second, names(p.A), names(p.B), sameUID, outcome}
}
