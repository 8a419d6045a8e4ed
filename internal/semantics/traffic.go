package semantics

import "net/netip"

// A Way is how several bindings share the traffic of one address.
type Way string

// The ways.
const (
	One    Way = "one"    // one binding gets everything
	Spread Way = "spread" // each gets a share, by a hash of the addresses and ports
	Copies Way = "copies" // each gets a copy of every datagram
)

// Traffic is which bindings get new connections, or datagrams of peers that no socket is
// connected to. If Evidence.Kind is Unknown, Way and To have no meaning.
type Traffic struct {
	Way      Way   // of several: no meaning if To has fewer
	To       []int // indices of the bindings that get it
	Rule     Rule
	Evidence Evidence
}

// destination is an address and a protocol to which traffic is sent.
type destination struct {
	addr  netip.Addr
	proto Proto
}

// Traffic returns which of several bindings of a port get the traffic of an address. The
// order of sharing is that of the binds, for UDP over IPv4 on NetBSD that of the last bind
// or datagram of each. A TCP binding in To whose State is Bound refuses or drops its share.
func (s System) Traffic(to netip.Addr, sharing []Binding) Traffic {
	to = to.Unmap().WithZone("")
	var proto Proto
	clean := make([]Binding, len(sharing))
	for i, b := range sharing {
		if !b.valid() || b.connected() || proto != 0 && b.Proto != proto {
			return Traffic{Rule: Rule{"invalid", "The bindings that share must be valid, of one protocol, and not connected."}}
		}
		proto = b.Proto
		clean[i] = b.unmapped()
	}
	if s.traffic == nil {
		return Traffic{Rule: Rule{"unverified", "Unverified."}}
	}
	return s.traffic(destination{to, proto}, clean)
}

// choose returns the indices of the bindings for which ok holds.
func choose(sharing []Binding, ok func(Binding) bool) []int {
	var found []int
	for i, b := range sharing {
		if ok(b) {
			found = append(found, i)
		}
	}
	return found
}

// best returns the best matches for an address, of the bindings for which ok, if any, holds:
// a specific address before a wildcard, and for IPv4 0.0.0.0 before a dual-stack wildcard.
func best(to netip.Addr, sharing []Binding, ok func(Binding) bool) []int {
	var found []int
	top := -1
	for i, b := range sharing {
		if !b.covers(to) || ok != nil && !ok(b) {
			continue
		}
		rank := 1
		if !b.wildcard() {
			rank = 2
		} else if b.dual() && to.Is4() {
			rank = 0
		}
		if rank > top {
			found, top = nil, rank
		}
		if rank == top {
			found = append(found, i)
		}
	}
	return found
}

// ready returns which bindings get traffic where a TCP socket must listen for it.
func ready(to destination) func(Binding) bool {
	return func(b Binding) bool { return to.proto == UDP || b.State == Listening }
}

// copies is the traffic to a multicast address where every socket gets a copy.
func copies(to netip.Addr, sharing []Binding, known Evidence, text string) Traffic {
	return Traffic{Way: Copies, To: choose(sharing, func(b Binding) bool { return b.covers(to) }), Evidence: known, Rule: Rule{"multicast", text}}
}

func newest(of []int) []int { return of[max(0, len(of)-1):] }
func oldest(of []int) []int { return of[:min(1, len(of))] }

// A Topic is what a Fact is about.
type Topic string

// The topics.
const (
	Closing   Topic = "closing"    // the accept queue of a listener that closes while others share its address
	Connect   Topic = "connect"    // a connect that would make the same two addresses and ports exist twice
	Restart   Topic = "restart"    // a bind while connections of a closed listener remain
	PortZero  Topic = "port 0"     // whether port 0 returns the port of another socket
	DualStack Topic = "dual stack" // a :: that also takes IPv4
	Multicast Topic = "multicast"  // several sockets on a group's port
	Security  Topic = "security"   // which sockets can get the port and traffic of another
	Late      Topic = "late"       // options that are set after the bind
)

// A Fact is a statement about a system that is not the result of a pair of binds.
type Fact struct {
	Topic    Topic
	Text     string
	Evidence Evidence
}

func sameTuple(errno string, known Evidence) Fact {
	return Fact{Connect, "The error is " + errno + ".", known}
}

// Fact returns the fact about a topic.
func (s System) Fact(t Topic) Fact {
	for _, f := range s.facts {
		if f.Topic == t {
			return f
		}
	}
	return Fact{Topic: t, Text: "Unverified."}
}
