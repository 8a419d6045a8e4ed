//go:build !android && !ios

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"example.com/reuse/internal/semantics"
)

const notKnown = "unverified"

// nbsp keeps a sign on the line of what it belongs to.
const nbsp = "\u00a0"

// A page is Markdown that grows.
type page struct{ strings.Builder }

// par adds a paragraph.
func (p *page) par(format string, args ...any) { fmt.Fprintf(p, format+"\n\n", args...) }

// list adds a list.
func (p *page) list(items []string) { p.par("- %s", strings.Join(items, "\n- ")) }

// table adds a table with a heading.
func (p *page) table(heading []string, rows [][]string) {
	fmt.Fprintf(p, "| %s |\n|%s\n", strings.Join(heading, " | "), strings.Repeat("---|", len(heading)))
	for _, row := range rows {
		fmt.Fprintf(p, "| %s |\n", strings.Join(row, " | "))
	}
	p.WriteString("\n")
}

// folded adds what write writes, below a line to click on.
func (p *page) folded(summary string, write func()) {
	p.par("<details><summary>%s</summary>", summary)
	write()
	p.par("</details>")
}

// perSystem adds a table with a row for each system. Systems with the same cells share a
// row. Those without evidence follow in a sentence.
func (p *page) perSystem(heading []string, cells func(semantics.System) []string) {
	var rows [][]string
	var unknown []string
	for _, g := range grouped(func(s semantics.System) string { return strings.Join(cells(s), " | ") }) {
		if strings.Contains(g.text, notKnown) && strings.Trim(strings.ReplaceAll(g.text, notKnown, ""), " |–") == "" {
			unknown = append(unknown, g.titles())
			continue
		}
		rows = append(rows, []string{g.titles(), g.text})
	}
	p.table(heading, rows)
	if len(unknown) > 0 {
		p.par("Unverified: %s.", strings.Join(unknown, ", "))
	}
}

// facts adds a list of what is known about a topic, and how; the same text once.
func (p *page) facts(t semantics.Topic) {
	var items, unknown []string
	for _, g := range grouped(func(s semantics.System) string { return s.Fact(t).Text }) {
		var titles []string
		var from []semantics.Evidence
		for _, s := range g.systems {
			known := s.Fact(t).Evidence
			titles = append(titles, strings.TrimRight("**"+s.Title()+"**"+nbsp+mark(known.Kind), nbsp))
			from = append(from, known)
		}
		item := strings.Join(titles, ", ") + ": " + g.text
		if how := references(from); how != "" {
			items = append(items, item+" ("+how+")")
		} else {
			unknown = append(unknown, item)
		}
	}
	p.list(append(items, unknown...))
}

// A group is a text about some systems.
type group struct {
	text    string
	systems []semantics.System
}

// grouped returns the texts about all systems. Systems with the same text share a group.
func grouped(text func(semantics.System) string) (list []group) {
	for _, s := range semantics.Systems() {
		t := text(s)
		i := slices.IndexFunc(list, func(g group) bool { return g.text == t })
		if i < 0 {
			i = len(list)
			list = append(list, group{text: t})
		}
		list[i].systems = append(list[i].systems, s)
	}
	return list
}

// titles names the systems of a group.
func (g group) titles() string {
	var list []string
	for _, s := range g.systems {
		list = append(list, s.Title())
	}
	return strings.Join(list, ", ")
}

// mark is the sign of a kind of evidence.
func mark(k semantics.EvidenceKind) string {
	return map[semantics.EvidenceKind]string{
		semantics.Measured: "ᵐ", semantics.Source: "ˢ", semantics.Vendor: "ᵛ", semantics.Inferred: "ⁱ", semantics.Unsure: "ᵘ",
	}[k]
}

// marked adds the sign to a text, or returns notKnown without evidence.
func marked(text string, k semantics.Evidence) string {
	if k.Kind == semantics.Unknown {
		return notKnown
	}
	return text + nbsp + mark(k.Kind)
}

// references lists the evidence, the strongest first.
func references(from []semantics.Evidence) string {
	var list []string
	slices.SortStableFunc(from, func(a, b semantics.Evidence) int { return cmp.Compare(b.Kind, a.Kind) })
	for _, k := range slices.Compact(from) {
		if item := mark(k.Kind) + nbsp + k.Reference; k.Kind != semantics.Unknown && !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	return strings.Join(list, "; ")
}

// link is a link to a heading of the page.
func link(heading string) string { return "[" + heading + "](#" + anchor(heading) + ")" }

// anchor is the name of a heading, as GitHub makes it.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
