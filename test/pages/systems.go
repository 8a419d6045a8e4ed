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

// An addressPair is the addresses of two sockets.
type addressPair [2]semantics.Binding

var (
	specific  = semantics.Binding{Addr: netip.MustParseAddr("192.0.2.1")}
	specific2 = semantics.Binding{Addr: netip.MustParseAddr("192.0.2.2")}
	wildcard  = semantics.Binding{Addr: netip.IPv4Unspecified()}
	specific6 = semantics.Binding{Addr: netip.MustParseAddr("2001:db8::1"), V6Only: true}
	only6     = semantics.Binding{Addr: netip.IPv6Unspecified(), V6Only: true}
	dual      = semantics.Binding{Addr: netip.IPv6Unspecified()}
	groupAddr = semantics.Binding{Addr: netip.MustParseAddr("224.1.2.3")}

	// The address pairs of a system's tables.
	pairs4 = []addressPair{{specific, specific}, {specific, specific2}, {wildcard, specific}, {specific, wildcard}, {wildcard, wildcard}}
	pairs6 = []addressPair{
		{dual, wildcard}, {wildcard, dual}, {dual, specific}, {specific, dual},
		{only6, wildcard}, {specific6, dual}, {dual, specific6}, {dual, dual},
	}

	// The kinds of sockets.
	bound     = semantics.Binding{Proto: semantics.TCP, State: semantics.Bound}
	listening = semantics.Binding{Proto: semantics.TCP, State: semantics.Listening}
	udp       = semantics.Binding{Proto: semantics.UDP, State: semantics.Bound}
)

const (
	addr, port = semantics.Addr, semantics.Port
	me, other  = 1000, 1001 // users
)

// socket is a socket of a kind at an address.
func socket(kind, at semantics.Binding, o semantics.Options, user int) semantics.Binding {
	at.Proto, at.State, at.Options, at.User = kind.Proto, kind.State, o, user
	return at
}

func (p addressPair) String() string {
	name := func(b semantics.Binding) string {
		return cmp.Or(map[semantics.Binding]string{dual: ":: dual", only6: ":: IPv6 only"}[b], b.Addr.String())
	}
	if p[0] == p[1] {
		return name(p[0]) + " twice"
	}
	return name(p[0]) + ", then " + name(p[1])
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
	return strings.Replace(strings.ToUpper(set.String()), "-", "no option", 1)
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

// cell is an outcome with its evidence, or "–" if the system lacks one of the options.
func cell(s semantics.System, set semantics.Options, a semantics.Answer) string {
	if set&^s.Options() != 0 {
		return "–"
	}
	return marked(outcome(a), a.Evidence)
}

// bind is the cell for two binds of any kind of socket, of one user and, after a slash, of
// two users if that differs.
func bind(s semantics.System, at addressPair, o optionPair) (text string, answers []semantics.Answer) {
	text, answers = bindAs(s, at, o, me)
	theirs, more := bindAs(s, at, o, other)
	if theirs != text {
		text += " / " + theirs
	}
	return text, append(answers, more...)
}

// bindAs is the cell for a user, and the answers in it.
func bindAs(s semantics.System, at addressPair, o optionPair, user int) (text string, answers []semantics.Answer) {
	if (o.a|o.b)&^s.Options() != 0 {
		return "–", nil
	}
	var all []string
	var known []semantics.Evidence
	for _, kind := range []semantics.Binding{bound, listening, udp} {
		a := s.Bind(socket(kind, at[0], o.a, me), socket(kind, at[1], o.b, user))
		all, known, answers = append(all, outcome(a)), append(known, a.Evidence), append(answers, a)
	}
	switch tcp, listening, udp := all[0], all[1], all[2]; {
	case tcp == listening && listening == udp:
		text = tcp
	case tcp == udp && udp == "yes" && listening == "no":
		text = "unless listening"
	case tcp == listening:
		text = "TCP " + tcp + ", UDP " + udp
	default:
		text = "TCP " + tcp + ", listening " + listening + ", UDP " + udp
	}
	if k := weakest(known); k.Kind != semantics.Unknown {
		text += nbsp + mark(k.Kind)
	}
	return text, answers
}

// A row is the cells for a pair of options.
type row struct {
	options optionPair
	cells   []string
}

// binds works out a system's rows, so that the last row whose options are within a pair of
// options is also about that pair. It also returns all answers.
func binds(s semantics.System) (rows []row, answers []semantics.Answer) {
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
		for _, at := range slices.Concat(pairs4, pairs6) {
			text, of := bind(s, at, p)
			cells, answers = append(cells, text), append(answers, of...)
		}
		var last []string
		for _, r := range rows {
			if r.options.within(p) {
				last = r.cells
			}
		}
		if !slices.Equal(last, cells) {
			rows = append(rows, row{p, cells})
		}
	}
	return rows, answers
}

// systemSection is the section about one system.
func systemSection(s semantics.System) (text string) {
	rows, answers := binds(s)
	var known []semantics.Evidence
	var rules []string
	for _, a := range answers {
		known = append(known, a.Evidence)
		if item := "*" + a.Rule.Name + "*: " + a.Rule.Text; !slices.Contains(rules, item) {
			rules = append(rules, item)
		}
	}
	how := references(known)
	if how == "" {
		return "The result of a second bind is unverified."
	}
	for i, pairs := range [][]addressPair{pairs4, pairs6} {
		heading := []string{"options"}
		for _, p := range pairs {
			heading = append(heading, p.String())
		}
		var lines [][]string
		for _, r := range rows {
			lines = append(lines, append([]string{r.options.String()}, r.cells[i*len(pairs4):][:len(pairs)]...))
		}
		text += table(heading, lines) + "\n\n"
	}
	return text + "<sub>" + how + "</sub>\n\n" + folded("The rules that decide", list(rules))
}
