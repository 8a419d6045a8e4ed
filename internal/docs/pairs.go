//go:build !android && !ios

package main

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

// A place is an address to bind to, by its name on the page.
type place struct {
	name   string
	addr   netip.Addr
	v6only bool
}

func at(addr, name string) place { return place{name, netip.MustParseAddr(addr), true} }

func specific() place  { return at("192.0.2.1", "192.0.2.1") }
func specific2() place { return at("192.0.2.2", "192.0.2.2") }
func wildcard() place  { return at("0.0.0.0", "0.0.0.0") }
func specific6() place { return at("2001:db8::1", "2001:db8::1") }
func only6() place     { return at("::", ":: IPv6 only") }
func group() place     { return at("224.1.2.3", "224.1.2.3") }

func dual() place {
	p := at("::", ":: dual")
	p.v6only = false
	return p
}

// pairs4 are the address pairs of the well-known table, pairs6 those of IPv6.
func pairs4() [][2]place {
	return [][2]place{
		{specific(), specific()}, {specific(), specific2()}, {wildcard(), specific()}, {specific(), wildcard()}, {wildcard(), wildcard()},
	}
}

func pairs6() [][2]place {
	return [][2]place{
		{dual(), wildcard()}, {wildcard(), dual()}, {dual(), specific()}, {specific(), dual()},
		{only6(), wildcard()}, {specific6(), dual()}, {dual(), specific6()}, {dual(), dual()},
	}
}

// A variant is a kind of socket: both of a pair are of one.
type variant struct {
	proto semantics.Proto
	state semantics.State
}

func variants() []variant {
	return []variant{{semantics.TCP, semantics.Bound}, {semantics.TCP, semantics.Listening}, {semantics.UDP, semantics.Bound}}
}

const (
	me    = 1000
	other = 1001
)

// bind is what becomes of a second bind.
func bind(s semantics.System, v variant, places [2]place, a, b semantics.Options, user int) semantics.Answer {
	return s.Second(binding(v, places[0], a, me), binding(v, places[1], b, user))
}

func binding(v variant, p place, o semantics.Options, user int) semantics.Binding {
	return semantics.Binding{Proto: v.proto, State: v.state, Addr: p.addr, V6Only: p.v6only, Options: o, User: user}
}

// outcome is "yes", "no" for address in use, an error's name, or "not known".
func outcome(a semantics.Answer) string {
	switch {
	case a.Known.How == semantics.Unknown:
		return notKnown
	case a.Err == "":
		return "yes"
	case a.Err == "EADDRINUSE", a.Err == "WSAEADDRINUSE":
		return "no"
	}
	return a.Err
}

// cell is what becomes of a pair for every kind of socket, in few words.
func cell(s semantics.System, places [2]place, a, b semantics.Options, user int) (string, []semantics.Known) {
	var outcomes []string
	var known []semantics.Known
	for _, v := range variants() {
		answer := bind(s, v, places, a, b, user)
		outcomes = append(outcomes, outcome(answer))
		known = append(known, answer.Known)
	}
	bound, listening, udp := outcomes[0], outcomes[1], outcomes[2]
	weakest := slices.MinFunc(known, func(a, b semantics.Known) int { return cmp.Compare(a.How, b.How) })
	text := "TCP " + bound + ", listening " + listening + ", UDP " + udp
	switch {
	case bound == listening && listening == udp:
		return marked(bound, weakest), known
	case bound == udp && bound == "yes" && listening == "no":
		text = "unless listening"
	case bound == listening && udp == "yes" && bound == "no":
		text = "UDP only"
	case bound == listening:
		text = "TCP " + bound + ", UDP " + udp
	}
	if weakest.How == semantics.Unknown {
		return text, known // and says so
	}
	return text + nbsp + mark(weakest.How), known
}

// short are the names of options in tables.
func short(o semantics.Option) string {
	switch o {
	case semantics.Addr:
		return "ADDR"
	case semantics.Port:
		return "PORT"
	case semantics.LB:
		return "LB"
	case semantics.Excl:
		return "EXCL"
	}
	return "SHAREUID"
}

func shortSet(set semantics.Options) string {
	var names []string
	for _, o := range set.List() {
		names = append(names, short(o))
	}
	return cmp.Or(strings.Join(names, "+"), "none")
}

// sets are the sets of options that the tables of a system have: those that
// differ for one user and do not contradict each other.
func sets(s semantics.System) []semantics.Options {
	var list []semantics.Options
	for _, set := range s.Subsets() {
		if set.Has(semantics.ShareUID) || set.Has(semantics.Addr) && set.Has(semantics.Excl) && s.OptionName(semantics.Excl) == "SO_EXCLUSIVEADDRUSE" {
			continue
		}
		list = append(list, set)
	}
	return list
}

// An optionPair is what the first socket of a pair sets, and the second.
type optionPair struct{ a, b semantics.Options }

func (p optionPair) String() string {
	switch {
	case p.a == p.b && p.a == 0:
		return "no option"
	case p.a == p.b:
		return shortSet(p.a) + " on both"
	case p.a == 0:
		return shortSet(p.b) + " on the second"
	case p.b == 0:
		return shortSet(p.a) + " on the first"
	}
	return shortSet(p.a) + ", then " + shortSet(p.b)
}

// within says that another pair sets all that this one does.
func (p optionPair) within(q optionPair) bool { return p.a&^q.a == 0 && p.b&^q.b == 0 }

// A class is the option pairs for which a system's table has the same column.
type class struct {
	members []optionPair
	cells   []string
}

// smallest returns the members that no other member is within.
func (c class) smallest() []optionPair {
	var list []optionPair
	for _, p := range c.members {
		if !slices.ContainsFunc(c.members, func(q optionPair) bool { return q != p && q.within(p) }) {
			list = append(list, p)
		}
	}
	return list
}

// name says which options make the class.
func (c class) name() string {
	var names []string
	for _, p := range c.smallest() {
		names = append(names, p.String())
	}
	return strings.Join(names, "; ")
}

// classes puts the option pairs of a system together that do the same to each of
// these address pairs.
func classes(s semantics.System, places [][2]place, user int) ([]class, *origins) {
	var list []class
	from := &origins{}
	for _, a := range sets(s) {
		for _, b := range sets(s) {
			var cells []string
			for _, pl := range places {
				text, known := cell(s, pl, a, b, user)
				cells = append(cells, text)
				for _, k := range known {
					from.add(k)
				}
			}
			i := slices.IndexFunc(list, func(c class) bool { return slices.Equal(c.cells, cells) })
			if i < 0 {
				i = len(list)
				list = append(list, class{cells: cells})
			}
			list[i].members = append(list[i].members, optionPair{a, b})
		}
	}
	return list, from
}

// ordered sorts classes so that an option pair belongs to the last one that has
// a smallest member within it. Where no order does that, a class is divided: the
// second part has the exceptions from another one.
func ordered(list []class) []class {
	rest := slices.Clone(list)
	var last []class // the end of the order, as far as it is found
	for len(rest) > 0 {
		i := slices.IndexFunc(rest, func(c class) bool {
			return !slices.ContainsFunc(rest, func(o class) bool { return len(c.takes(o)) > 0 })
		})
		if i < 0 {
			rest = divided(rest)
			continue
		}
		last = slices.Insert(last, 0, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return last
}

// takes returns the members of another class that have a smallest member of this
// one within them.
func (c class) takes(o class) []optionPair {
	var list []optionPair
	for _, p := range o.members {
		if !slices.Contains(c.members, p) && slices.ContainsFunc(c.smallest(), func(q optionPair) bool { return q.within(p) }) {
			list = append(list, p)
		}
	}
	return list
}

// divided divides one of several classes of which none can be the last. There is
// one of which another takes a part: if each took another whole, there would be
// ever smaller pairs.
func divided(list []class) []class {
	for _, c := range list {
		for i, o := range list {
			part := c.takes(o)
			if len(part) == 0 || len(part) == len(o.members) {
				continue
			}
			list[i].members = slices.DeleteFunc(slices.Clone(o.members), func(p optionPair) bool { return slices.Contains(part, p) })
			return append(list, class{part, o.cells})
		}
	}
	panic("docs: classes that cannot be divided")
}
