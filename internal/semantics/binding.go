package semantics

import (
	"cmp"
	"net/netip"
	"strings"
)

// A Proto is a protocol. Each has its own port space. Multipath TCP is TCP here: its
// sockets share and conflict in the same way (measured, Linux 6.18).
type Proto uint8

// The protocols.
const (
	TCP Proto = iota + 1
	UDP
)

// String returns "tcp" or "udp".
func (p Proto) String() string {
	return map[Proto]string{TCP: "tcp", UDP: "udp"}[p]
}

// A State is the state of a binding. From Established on it is a connection, or the
// kernel's memory of one, without its listener, see Binding.Dialed.
type State uint8

// The states, in the order of a socket's life.
const (
	Bound State = iota + 1
	Listening
	Established
	TimeWait
	FinWait2
	CloseWait
)

// String returns the name in rows, such as "listening" or "time-wait".
func (s State) String() string {
	return map[State]string{
		Bound: "bound", Listening: "listening", Established: "established", TimeWait: "time-wait", FinWait2: "fin-wait-2", CloseWait: "close-wait",
	}[s]
}

// Options is a socket option, the same one on all systems, or a set of them.
// System.OptionName returns a system's name of one.
type Options uint8

// The options.
const (
	Addr     Options = 1 << iota // SO_REUSEADDR
	Port                         // SO_REUSEPORT
	LB                           // FreeBSD's SO_REUSEPORT_LB
	Excl                         // Windows' SO_EXCLUSIVEADDRUSE, Solaris' and illumos' SO_EXCLBIND
	ShareUID                     // Darwin's SO_REUSESHAREUID
)

// Has reports whether an option is in the set.
func (all Options) Has(o Options) bool { return all&o != 0 }

// List returns the options of the set, in the order of their declaration.
func (all Options) List() []Options {
	var list []Options
	for o := Addr; o <= ShareUID; o <<= 1 {
		if all.Has(o) {
			list = append(list, o)
		}
	}
	return list
}

// String returns the short names in rows, joined by "+", or "-" for none.
func (all Options) String() string {
	var names []string
	for _, o := range all.List() {
		names = append(names, map[Options]string{Addr: "addr", Port: "port", LB: "lb", Excl: "excl", ShareUID: "shareuid"}[o])
	}
	return cmp.Or(strings.Join(names, "+"), "-")
}

// Subsets returns every set of the options of a system, the empty one first.
func (s System) Subsets() []Options {
	sets := []Options{0}
	for _, o := range s.Options().List() {
		for _, with := range sets {
			sets = append(sets, with|o)
		}
	}
	return sets
}

// Root is the user that some systems exempt from the test of users.
const Root = 0

// A Binding is a socket that is bound to a port. The port, and the network namespace or
// jail, do not matter: the bindings of one call have the same.
type Binding struct {
	Proto   Proto
	State   State      // of a second binding: Bound, or Listening if listen follows
	Addr    netip.Addr // without V6Only :: also takes IPv4; ::ffff:a.b.c.d is IPv4
	V6Only  bool       // see below for a binding from Established on
	Options Options
	User    int // the same number is the same user

	// V6Only of a socket that is, or was, connected to an IPv6 peer is false if that
	// socket or its listener was bound to a dual-stack ::. On Linux the socket then
	// also prevents a bind to 0.0.0.0. A bind to another IPv6 address makes V6Only true.

	// Dialed is true if connect made a binding from Established on. Otherwise the
	// connection was accepted, and its listener is closed. DragonFly, NetBSD and
	// Windows treat the two differently.
	Dialed bool

	// Port is the port, for NetBSD, where it matters to a restart, see its rule.
	// 0 is any port to which a bind fails.
	Port uint16

	mapped bool // Addr was ::ffff:a.b.c.d
}

func (b Binding) valid() bool {
	return (b.Proto == TCP || b.Proto == UDP) && b.State >= Bound && b.State <= CloseWait && b.Addr.IsValid()
}

// v4 reports whether a binding is IPv4 only, dual whether it takes both families.
func (b Binding) v4() bool        { return b.Addr.Is4() }
func (b Binding) dual() bool      { return b.Addr == netip.IPv6Unspecified() && !b.V6Only }
func (b Binding) wildcard() bool  { return b.Addr.IsUnspecified() }
func (b Binding) multicast() bool { return b.Addr.IsMulticast() }
func (b Binding) connected() bool { return b.State >= Established }

// covers reports whether the binding alone would get the traffic of an address.
func (b Binding) covers(to netip.Addr) bool {
	if b.wildcard() {
		return b.v4() == to.Is4() || b.dual()
	}
	return b.Addr == to
}

// unmapped returns the binding with ::ffff:a.b.c.d as IPv4, as the kernels treat it.
func (b Binding) unmapped() Binding {
	b.mapped = b.Addr.Is4In6()
	b.Addr = b.Addr.Unmap().WithZone("")
	return b
}

// sameFamily reports whether both are IPv4 or neither is.
func sameFamily(a, b Binding) bool { return a.v4() == b.v4() }

// overlap reports whether some traffic could reach both bindings.
func overlap(a, b Binding) bool {
	if sameFamily(a, b) {
		return a.Addr == b.Addr || a.wildcard() || b.wildcard()
	}
	return a.dual() || b.dual()
}
