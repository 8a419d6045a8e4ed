package semantics

import (
	"net/netip"
	"strconv"
	"strings"
)

// A Proto is a protocol. Each has a port space of its own. Multipath TCP is TCP
// here: its sockets share and conflict as TCP's do (measured, Linux 6.18).
type Proto uint8

// The protocols.
const (
	TCP Proto = iota + 1
	UDP
)

// String returns "tcp" or "udp".
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "Proto(" + strconv.Itoa(int(p)) + ")"
}

// A State is what a binding has come to. Those from Established on are sockets,
// or the kernel's memory of them, whose listener has gone; see Binding.Dialed.
type State uint8

// The states, in the order in which a socket comes to them.
const (
	Bound State = iota + 1
	Listening
	Established
	TimeWait
	FinWait2
	CloseWait
)

// String returns the name that rows have, as in "listening" or "time-wait".
func (s State) String() string {
	switch s {
	case Bound:
		return "bound"
	case Listening:
		return "listening"
	case Established:
		return "established"
	case TimeWait:
		return "time-wait"
	case FinWait2:
		return "fin-wait-2"
	case CloseWait:
		return "close-wait"
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// An Option is one socket option, the same one on all systems. How a system
// calls it, if it has it, is System.OptionName.
type Option uint8

// The options, each a bit of Options.
const (
	Addr     Option = 1 << iota // SO_REUSEADDR
	Port                        // SO_REUSEPORT
	LB                          // FreeBSD's SO_REUSEPORT_LB
	Excl                        // Windows' SO_EXCLUSIVEADDRUSE, Solaris' and illumos' SO_EXCLBIND
	ShareUID                    // Darwin's SO_REUSESHAREUID
)

// String returns the short name that rows have.
func (o Option) String() string { return Options(o).String() }

// Options is a set of options.
type Options uint8

// Opts returns the set of some options.
func Opts(list ...Option) Options {
	var all Options
	for _, o := range list {
		all |= Options(o)
	}
	return all
}

// Has says whether an option is in the set.
func (all Options) Has(o Option) bool { return all&Options(o) != 0 }

// List returns the options of the set, in the order of their declaration.
func (all Options) List() []Option {
	var list []Option
	for o := Addr; o <= ShareUID; o <<= 1 {
		if all.Has(o) {
			list = append(list, o)
		}
	}
	return list
}

// String returns names joined by "+", or "-" for none.
func (all Options) String() string {
	if all == 0 {
		return "-"
	}
	var names []string
	for o := Options(1); o != 0; o <<= 1 {
		if all&o == 0 {
			continue
		}
		switch Option(o) {
		case Addr:
			names = append(names, "addr")
		case Port:
			names = append(names, "port")
		case LB:
			names = append(names, "lb")
		case Excl:
			names = append(names, "excl")
		case ShareUID:
			names = append(names, "shareuid")
		default:
			names = append(names, "Option("+strconv.Itoa(int(o))+")")
		}
	}
	return strings.Join(names, "+")
}

// Subsets returns every set of the options of a system, the empty one first.
func (s System) Subsets() []Options {
	sets := []Options{0}
	for _, o := range s.Options() {
		for _, with := range sets {
			sets = append(sets, with|Options(o))
		}
	}
	return sets
}

// Root is the user that some systems exempt from their test of users.
const Root = 0

// A Binding is one socket's hold on a port. Which port, and which network
// namespace or jail, does not matter: the bindings of one question have the same.
type Binding struct {
	Proto   Proto
	State   State      // of a second binding: Bound, or Listening if listen follows
	Addr    netip.Addr // :: takes IPv4, too, unless V6Only; ::ffff:a.b.c.d is IPv4
	V6Only  bool       // see below for a binding from Established on
	Options Options
	User    int // the same number is the same user

	// V6Only of a socket that is, or was, connected to an IPv6 peer: false if it
	// was bound to a dual-stack ::, or its listener was. On Linux it then keeps its
	// port from 0.0.0.0, too. A bind to an IPv6 address other than :: makes it true.

	// Dialed says that a binding from Established on was connected by connect.
	// Otherwise it was accepted, and its listener has been closed. DragonFly,
	// NetBSD and Windows tell them apart.
	Dialed bool

	// Port is the port, for NetBSD, where it matters to a restart; see its rule.
	// 0: any of those that are refused.
	Port uint16

	mapped bool // Addr was ::ffff:a.b.c.d
}

func (b Binding) valid() bool {
	return (b.Proto == TCP || b.Proto == UDP) && b.State >= Bound && b.State <= CloseWait && b.Addr.IsValid()
}

// v4 says that a binding is IPv4 only; dual, that it takes both families.
func (b Binding) v4() bool        { return b.Addr.Is4() }
func (b Binding) dual() bool      { return b.Addr == netip.IPv6Unspecified() && !b.V6Only }
func (b Binding) wildcard() bool  { return b.Addr.IsUnspecified() }
func (b Binding) multicast() bool { return b.Addr.IsMulticast() }
func (b Binding) connected() bool { return b.State >= Established }

// covers says that traffic to an address would find the binding if it were alone.
func (b Binding) covers(to netip.Addr) bool {
	if b.wildcard() {
		return b.v4() == to.Is4() || b.dual()
	}
	return b.Addr == to
}

// sameFamily says that both are IPv4 or neither is.
func sameFamily(a, b Binding) bool { return a.v4() == b.v4() }

// overlap says that there is traffic that both would take.
func overlap(a, b Binding) bool {
	if sameFamily(a, b) {
		return a.Addr == b.Addr || a.wildcard() || b.wildcard()
	}
	return a.dual() || b.dual()
}
