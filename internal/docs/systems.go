//go:build !android && !ios

package main

import (
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

// rulesFile is the file of internal/semantics that has the rules of a system.
func rulesFile(s semantics.System) string {
	name, _, _ := strings.Cut(s.Name(), "-")
	switch name {
	case "android":
		name = "linux"
	case "ios":
		name = "darwin"
	case "windows":
		name = "winsock"
	case "solaris":
		name = "oracle"
	case "aix", "js", "wasip1", "plan9":
		name = "other"
	}
	return name + "rules.go"
}

// A section is what the page says of one system, or of several alike.
type section struct {
	titles []string
	body   string
}

func (s section) heading() string { return strings.Join(s.titles, ", ") }

// sections returns a section for every system; those that would read the same
// are one.
func sections() []section {
	var list []section
	for i, s := range semantics.Systems() {
		body := systemBody(s, semantics.Systems()[:i])
		same := slices.IndexFunc(list, func(o section) bool { return o.body == body })
		if same >= 0 {
			list[same].titles = append(list[same].titles, s.Title())
			continue
		}
		list = append(list, section{[]string{s.Title()}, body})
	}
	return list
}

// systemBody writes a system's section. earlier are the systems that have one.
func systemBody(s semantics.System, earlier []semantics.System) string {
	var p page
	file := rulesFile(s)
	p.par("Rules: [`%s`](../internal/semantics/%s).", file, file)
	if like, ok := inferredFrom(s, earlier); ok {
		_, from := classes(s, slices.Concat(pairs4(), pairs6()), me)
		p.par("Every cell is as for %s; that is %s.", link(like.Title()), from.plain())
		return p.String()
	}
	pairTables(&p, s, me)
	others, _ := classes(s, slices.Concat(pairs4(), pairs6()), other)
	mine, _ := classes(s, slices.Concat(pairs4(), pairs6()), me)
	switch {
	case nothingKnown(mine):
		return p.String()
	case nothingKnown(others):
		p.par("If the second bind is another user's: not known.")
	case sameClasses(mine, others):
		p.par("Users make no difference: the same holds for another user's bind.")
	default:
		p.folded("If the second bind is another user's, who is not root", func() { pairTables(&p, s, other) })
	}
	p.folded("The clauses that decide", func() { p.list(clauses(s)) })
	return p.String()
}

// pairTables writes the two tables of a system, for a second socket of a user.
func pairTables(p *page, s semantics.System, user int) {
	all, from := classes(s, slices.Concat(pairs4(), pairs6()), user)
	if nothingKnown(all) {
		p.par("What becomes of a second bind is not known.")
		return
	}
	all = ordered(all)
	several := slices.ContainsFunc(all, func(c class) bool { return len(c.members) > 1 })
	if several && len(all) > 1 {
		p.par("The last %s that fits the options counts.", map[bool]string{true: "row", false: "column"}[upright(all)])
	}
	p.table(pairTable(all, pairs4(), 0))
	ipv6 := func() { p.table(pairTable(all, pairs6(), len(pairs4()))) }
	if user == me {
		p.folded("IPv6, and both families", ipv6)
	} else {
		ipv6()
	}
	if how := from.String(); how != "" {
		p.par("<sub>%s</sub>", how)
	}
}

// nothingKnown says that no cell of a table is known.
func nothingKnown(all []class) bool {
	return len(all) == 1 && !slices.ContainsFunc(all[0].cells, func(text string) bool { return text != notKnown })
}

// upright says that a table has a row for each class, as they are too many for
// columns.
func upright(all []class) bool { return len(all) > 6 }

// pairTable is a table of address pairs; skip are the cells of other pairs before.
func pairTable(all []class, places [][2]place, skip int) [][]string {
	rows := [][]string{{"first, then second"}}
	for _, pl := range places {
		rows = append(rows, []string{pairName(pl)})
	}
	for _, c := range all {
		rows[0] = append(rows[0], options(all, c))
		for i := range places {
			rows[i+1] = append(rows[i+1], c.cells[skip+i])
		}
	}
	if upright(all) {
		rows = transposed(rows)
		rows[0][0] = "options"
	}
	return rows
}

func pairName(pl [2]place) string {
	if pl[0] == pl[1] {
		return pl[0].name + " twice"
	}
	return pl[0].name + ", then " + pl[1].name
}

// options is the heading of a class.
func options(all []class, c class) string {
	if len(all) == 1 {
		return "whatever the options"
	}
	if len(c.members) > 1 && c.members[0] == (optionPair{}) {
		return "otherwise"
	}
	return c.name()
}

func transposed(rows [][]string) [][]string {
	out := make([][]string, len(rows[0]))
	for i := range out {
		for _, row := range rows {
			out[i] = append(out[i], row[i])
		}
	}
	return out
}

func sameClasses(a, b []class) bool {
	return slices.EqualFunc(a, b, func(x, y class) bool {
		return slices.Equal(x.cells, y.cells) && slices.Equal(x.members, y.members)
	})
}

// inferredFrom finds an earlier system with the same options and outcomes from
// which all that is known of this one is inferred.
func inferredFrom(s semantics.System, earlier []semantics.System) (semantics.System, bool) {
	for _, e := range earlier {
		if !slices.Equal(s.Options(), e.Options()) {
			continue
		}
		same := true
		eachPair(s, func(v variant, pl [2]place, a, b semantics.Options, user int) {
			x, y := bind(s, v, pl, a, b, user), bind(e, v, pl, a, b, user)
			weak := x.Known.How == semantics.Inferred || x.Known.How == semantics.Unknown
			same = same && weak && x.String() == y.String()
		})
		if same {
			return e, true
		}
	}
	return semantics.System{}, false
}

// eachPair calls do with every question that the tables of a system answer.
func eachPair(s semantics.System, do func(v variant, pl [2]place, a, b semantics.Options, user int)) {
	for _, pl := range slices.Concat(pairs4(), pairs6()) {
		for _, v := range variants() {
			for _, a := range sets(s) {
				for _, b := range sets(s) {
					do(v, pl, a, b, me)
					do(v, pl, a, b, other)
				}
			}
		}
	}
}

// clauses lists the rules that decide the cells of a system's tables.
func clauses(s semantics.System) []string {
	var list []string
	eachPair(s, func(v variant, pl [2]place, a, b semantics.Options, user int) {
		r := bind(s, v, pl, a, b, user).Rule
		if item := "*" + r.Name + "*: " + r.Text; !slices.Contains(list, item) {
			list = append(list, item)
		}
	})
	return list
}
