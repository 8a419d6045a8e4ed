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

func list(items []string) string { return "- " + strings.Join(items, "\n- ") }

// table is a table with a heading.
func table(heading []string, rows [][]string) string {
	text := fmt.Sprintf("| %s |\n|%s", strings.Join(heading, " | "), strings.Repeat("---|", len(heading)))
	for _, row := range rows {
		text += "\n| " + strings.Join(row, " | ") + " |"
	}
	return text
}

// folded is a text below a line to click on.
func folded(summary, text string) string {
	return "<details><summary>" + summary + "</summary>\n\n" + text + "\n\n</details>"
}

// perSystem is a table with a row for each system. Systems with the same cells share a
// row. Those without evidence follow in a sentence.
func perSystem(heading []string, cells func(semantics.System) []string) string {
	var rows [][]string
	var unknown []string
	for _, g := range grouped(func(s semantics.System) string { return strings.Join(cells(s), " | ") }) {
		if strings.Contains(g.Text, notKnown) && strings.Trim(strings.ReplaceAll(g.Text, notKnown, ""), " |–") == "" {
			unknown = append(unknown, g.Titles())
			continue
		}
		rows = append(rows, []string{g.Titles(), g.Text})
	}
	text := table(append([]string{""}, heading...), rows)
	if len(unknown) > 0 {
		text += "\n\nUnverified: " + strings.Join(unknown, ", ") + "."
	}
	return text
}

// facts lists what is known about a topic, and how. Systems with the same text share one.
func facts(t semantics.Topic) string {
	var items, unknown []string
	for _, g := range grouped(func(s semantics.System) string { return s.Fact(t).Text }) {
		var titles []string
		var from []semantics.Evidence
		for _, s := range g.systems {
			known := s.Fact(t).Evidence
			titles = append(titles, strings.TrimRight("**"+s.String()+"**"+nbsp+mark(known.Kind), nbsp))
			from = append(from, known)
		}
		item := strings.Join(titles, ", ") + ": " + g.Text
		if how := references(from); how != "" {
			items = append(items, item+" ("+how+")")
		} else {
			unknown = append(unknown, item)
		}
	}
	return list(append(items, unknown...))
}

// A group is a text about some systems.
type group struct {
	Text    string
	systems []semantics.System
}

// grouped returns the texts about all systems. Systems with the same text share a group.
func grouped(text func(semantics.System) string) (list []group) {
	for _, s := range semantics.Systems() {
		t := text(s)
		i := slices.IndexFunc(list, func(g group) bool { return g.Text == t })
		if i < 0 {
			i = len(list)
			list = append(list, group{Text: t})
		}
		list[i].systems = append(list[i].systems, s)
	}
	return list
}

// Titles names the systems of a group.
func (g group) Titles() string {
	var list []string
	for _, s := range g.systems {
		list = append(list, s.String())
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
	for _, k := range from {
		if item := mark(k.Kind) + nbsp + k.Reference; k.Kind != semantics.Unknown && !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	return strings.Join(list, "; ")
}

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
