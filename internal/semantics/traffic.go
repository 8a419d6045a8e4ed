package semantics

import "net/netip"

// A Way is how several bindings share what is sent to one address.
type Way uint8

// The ways.
const (
	Nobody Way = iota // no binding takes it
	One               // one binding gets everything
	Spread            // each gets a share, by a hash of the addresses and ports
	Copies            // each gets a copy of every datagram
)

// String returns the word for a person, as in "spread".
func (w Way) String() string {
	switch w {
	case One:
		return "one"
	case Spread:
		return "spread"
	case Copies:
		return "copies"
	}
	return "nobody"
}

// Traffic says who gets new connections, or datagrams of peers that no socket is
// connected to. Where Known.How is Unknown, Way and To say nothing.
type Traffic struct {
	Way   Way
	To    []int // indices of the bindings that get it
	Rule  Rule
	Known Known
}

// destination is where traffic goes: an address and what speaks there.
type destination struct {
	addr  netip.Addr
	proto Proto
}

// Traffic says who gets what is sent to an address while several bindings share
// the port. They stand in the order of their binds; for UDP over IPv4 on NetBSD, of
// their last bind or datagram. A TCP binding that is Bound
// and in To refuses or drops its share: the kernel has chosen it, and it does not
// listen.
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
	t := s.traffic(destination{to, proto}, clean)
	if len(t.To) == 0 {
		t.Way = Nobody
	}
	return t
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

// best returns, of the bindings that cover an address and for which ok holds,
// those with the greatest rank.
func best(to netip.Addr, sharing []Binding, ok func(Binding) bool, rank func(Binding) int) []int {
	var found []int
	top := -1
	for i, b := range sharing {
		if !b.covers(to) || !ok(b) {
			continue
		}
		if r := rank(b); r > top {
			found, top = []int{i}, r
		} else if r == top {
			found = append(found, i)
		}
	}
	return found
}

// specificFirst ranks a specific address over the wildcard of the traffic's own
// family, and that over a dual-stack wildcard.
func specificFirst(to netip.Addr) func(Binding) int {
	return func(b Binding) int {
		switch {
		case !b.wildcard():
			return 2
		case to.Is4() && b.dual():
			return 0
		}
		return 1
	}
}

func anyBinding(Binding) bool { return true }
func newest(of []int) []int   { return of[max(0, len(of)-1):] }
func oldest(of []int) []int   { return of[:min(1, len(of))] }

// A Queue is what becomes of connections that are complete, but not accepted.
type Queue string

// What becomes of a queue.
const (
	Reset Queue = "reset" // the peer's next read fails
	Moved Queue = "moved" // another listener of the group accepts them
)

// Closing says what becomes of a listener's queue when it is closed while others
// share its address.
type Closing struct {
	Queue Queue // "" if it is not known
	Text  string
	Known Known
}

// Closing says what becomes of the queue of a listener that is closed.
func (s System) Closing() Closing { return s.closing }

// A Topic is what a Fact is about.
type Topic string

// The topics.
const (
	Restart   Topic = "restart"    // a bind beside what a listener left behind
	PortZero  Topic = "port 0"     // whether a port is handed out twice
	DualStack Topic = "dual stack" // a :: that takes IPv4, too
	Multicast Topic = "multicast"  // several sockets on a group's port
	Security  Topic = "security"   // who can take whose port and traffic
	Late      Topic = "late"       // options that are set after the bind
)

// Topics returns all topics in the order of a document.
func Topics() []Topic {
	return []Topic{Restart, PortZero, DualStack, Multicast, Security, Late}
}

// A Fact is something about a system that is not the fate of a pair of bindings.
type Fact struct {
	Topic Topic
	Text  string
	Known Known
}

// Fact returns what is known about a topic.
func (s System) Fact(t Topic) Fact {
	for _, f := range s.facts {
		if f.Topic == t {
			return f
		}
	}
	return Fact{Topic: t, Text: "Not known."}
}
