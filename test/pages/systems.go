//go:build !android && !ios

package main

import (
	"cmp"
	"math/bits"
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

var (
	specific  = place{"192.0.2.1", netip.MustParseAddr("192.0.2.1"), false}
	specific2 = place{"192.0.2.2", netip.MustParseAddr("192.0.2.2"), false}
	wildcard  = place{"0.0.0.0", netip.IPv4Unspecified(), false}
	specific6 = place{"2001:db8::1", netip.MustParseAddr("2001:db8::1"), true}
	only6     = place{":: IPv6 only", netip.IPv6Unspecified(), true}
	dual      = place{":: dual", netip.IPv6Unspecified(), false}
	multi     = place{"224.1.2.3", netip.MustParseAddr("224.1.2.3"), false}

	// The address pairs of a system's tables.
	pairs4 = [][2]place{{specific, specific}, {specific, specific2}, {wildcard, specific}, {specific, wildcard}, {wildcard, wildcard}}
	pairs6 = [][2]place{
		{dual, wildcard}, {wildcard, dual}, {dual, specific}, {specific, dual},
		{only6, wildcard}, {specific6, dual}, {dual, specific6}, {dual, dual},
	}

	addr, port = semantics.Opts(semantics.Addr), semantics.Opts(semantics.Port)
)

// A socket is a kind of socket.
type socket struct {
	proto semantics.Proto
	state semantics.State
}

var bound, listening, udp = socket{semantics.TCP, semantics.Bound}, socket{semantics.TCP, semantics.Listening}, socket{semantics.UDP, semantics.Bound}

const me, other = 1000, 1001 // users

func (k socket) on(p place, o semantics.Options, user int) semantics.Binding {
	return semantics.Binding{Proto: k.proto, State: k.state, Addr: p.addr, V6Only: p.v6only, Options: o, User: user}
}

// An optionPair is what the first of two sockets sets, and the second.
type optionPair struct{ a, b semantics.Options }

func (p optionPair) String() string {
	switch {
	case p == optionPair{}:
		return names(0)
	case p.a == p.b:
		return names(p.a) + " on both"
	case p.a == 0:
		return names(p.b) + " on the second"
	case p.b == 0:
		return names(p.a) + " on the first"
	}
	return names(p.a) + ", then " + names(p.b)
}

// within reports whether another pair sets every option of this one.
func (p optionPair) within(q optionPair) bool { return p.a&^q.a == 0 && p.b&^q.b == 0 }

// names is a set of options as the tables write it: ADDR+PORT.
func names(set semantics.Options) string {
	if set == 0 {
		return "no option"
	}
	return strings.ToUpper(set.String())
}

// has reports whether a system has all options of a set.
func has(s semantics.System, set semantics.Options) bool {
	return !slices.ContainsFunc(set.List(), func(o semantics.Option) bool { return s.OptionName(o) == "" })
}

// sets are the sets of options that the tables of a system have: those that differ for
// one user and do not contradict each other.
func sets(s semantics.System) []semantics.Options {
	return slices.DeleteFunc(s.Subsets(), func(set semantics.Options) bool {
		return set.Has(semantics.ShareUID) || set.Has(semantics.Addr) && set.Has(semantics.Excl) && s.OptionName(semantics.Excl) == "SO_EXCLUSIVEADDRUSE"
	})
}

// outcome is "yes", "no" for address in use, an error's name, or "unverified".
func outcome(a semantics.Answer) string {
	switch {
	case a.Evidence.Kind == semantics.Unknown:
		return notKnown
	case a.Err == "":
		return "yes"
	case strings.TrimPrefix(a.Err, "WSA") == "EADDRINUSE":
		return "no"
	}
	return a.Err
}

// A fate is the result of the second of two binds on one system.
type fate struct {
	text  string
	known []semantics.Evidence
	rules []semantics.Rule
}

// bind returns the result for a pair of places and options, for every kind of socket.
func bind(s semantics.System, pl [2]place, o optionPair, user int) fate {
	if !has(s, o.a|o.b) {
		return fate{text: "–"}
	}
	var f fate
	var all []string
	for _, k := range []socket{bound, listening, udp} {
		a := s.Bind(k.on(pl[0], o.a, me), k.on(pl[1], o.b, user))
		all, f.known, f.rules = append(all, outcome(a)), append(f.known, a.Evidence), append(f.rules, a.Rule)
	}
	weakest := slices.MinFunc(f.known, func(a, b semantics.Evidence) int { return cmp.Compare(a.Kind, b.Kind) })
	switch tcp, listening, udp := all[0], all[1], all[2]; {
	case tcp == listening && listening == udp:
		f.text = tcp
	case tcp == udp && udp == "yes" && listening == "no":
		f.text = "unless listening"
	case tcp == listening && tcp == "no" && udp == "yes":
		f.text = "UDP only"
	case tcp == listening:
		f.text = "TCP " + tcp + ", UDP " + udp
	default:
		f.text = "TCP " + tcp + ", listening " + listening + ", UDP " + udp
	}
	if weakest.Kind != semantics.Unknown {
		f.text += nbsp + mark(weakest.Kind)
	}
	return f
}

// A row is the option pairs that have the same cells.
type row struct {
	options []optionPair
	cells   []string
}

// table works out a system's rows, so that a pair of options belongs to the last row
// that has a pair within it; and lists the evidence and the rules that decide.
func table(s semantics.System, user int) (rows []row, known []semantics.Evidence, rules []string) {
	var all []optionPair
	for _, a := range sets(s) {
		for _, b := range sets(s) {
			all = append(all, optionPair{a, b})
		}
	}
	count := func(p optionPair) int { return bits.OnesCount8(uint8(p.a)) + bits.OnesCount8(uint8(p.b)) }
	slices.SortStableFunc(all, func(p, q optionPair) int { return cmp.Compare(count(p), count(q)) })
	for _, p := range all {
		var cells []string
		for _, pl := range slices.Concat(pairs4, pairs6) {
			f := bind(s, pl, p, user)
			cells, known = append(cells, f.text), append(known, f.known...)
			for _, r := range f.rules {
				if item := "*" + r.Name + "*: " + r.Text; !slices.Contains(rules, item) {
					rules = append(rules, item)
				}
			}
		}
		last := -1
		for i, r := range rows {
			if slices.ContainsFunc(r.options, func(q optionPair) bool { return q.within(p) }) {
				last = i
			}
		}
		if last >= 0 && slices.Equal(rows[last].cells, cells) {
			continue
		}
		i := slices.IndexFunc(rows[last+1:], func(r row) bool { return slices.Equal(r.cells, cells) })
		if i < 0 {
			rows = append(rows, row{[]optionPair{p}, cells})
		} else {
			rows[last+1+i].options = append(rows[last+1+i].options, p)
		}
	}
	return rows, known, rules
}

// rulesFile is the file of internal/semantics that has the rules of a system.
func rulesFile(s semantics.System) string {
	name, _, _ := strings.Cut(s.Name(), "-")
	return cmp.Or(map[string]string{
		"android": "linux", "ios": "darwin", "windows": "winsock", "solaris": "oracle",
		"aix": "other", "js": "other", "wasip1": "other", "plan9": "other",
	}[name], name) + "rules.go"
}

// systemSection returns the section about one system.
func systemSection(s semantics.System) string {
	var p page
	file := rulesFile(s)
	p.par("Rules: [`%s`](../internal/semantics/%s).", file, file)
	mine, known, rules := table(s, me)
	theirs, theirKnown, more := table(s, other)
	write := func(rows []row, known []semantics.Evidence) {
		for i, places := range [][][2]place{pairs4, pairs6} {
			heading := []string{"options"}
			for _, pl := range places {
				heading = append(heading, strings.Replace(pl[0].name+", then "+pl[1].name, pl[0].name+", then "+pl[0].name, pl[0].name+" twice", 1))
			}
			var lines [][]string
			for _, r := range rows {
				var name []string
				for _, o := range r.options {
					name = append(name, o.String())
				}
				lines = append(lines, append([]string{strings.Join(name, "; ")}, r.cells[i*len(pairs4):][:len(places)]...))
			}
			p.table(heading, lines)
		}
		p.par("<sub>%s</sub>", references(known))
	}
	switch {
	case references(known) == "":
		p.par("The result of a second bind is unverified.")
		return p.String()
	case references(theirKnown) == "":
		write(mine, known)
		p.par("If the second bind is another user's: unverified.")
	case slices.EqualFunc(mine, theirs, func(a, b row) bool { return slices.Equal(a.cells, b.cells) && slices.Equal(a.options, b.options) }):
		write(mine, known)
		p.par("Users make no difference.")
	default:
		write(mine, known)
		p.folded("If the second bind is another user's, who is not root", func() { write(theirs, theirKnown) })
	}
	p.folded("The rules that decide", func() {
		p.list(append(rules, slices.DeleteFunc(more, func(r string) bool { return slices.Contains(rules, r) })...))
	})
	return p.String()
}
