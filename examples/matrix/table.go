//go:build !android && !ios

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/term"
)

// A table is what the program found out or knows, to be printed.
type table struct {
	System   string // with its version, if it is the running one
	Rules    string // whose they are
	How      string // the pairs came about
	Measured bool
	Names    []string // of the options, "addr", ... in the order of their bits
	Option   map[string]string
	Absent   []string // what is left out, and why
	Rows     []row
	Usual    string // how most of them are known, if they are not measured
}

// count returns how many rows a function holds for.
func (t *table) count(fn func(*row) bool) (n int) {
	for i := range t.Rows {
		if fn(&t.Rows[i]) {
			n++
		}
	}
	return n
}

func (t *table) differences() int { return t.count((*row).differs) }

// mark is the character beside a symbol: that it differs, or how it is known if
// not as most of them are.
func (t *table) mark(r *row) string {
	switch {
	case r.differs():
		return "!"
	case !t.predicted(r) || r.Known == t.Usual:
		return " "
	}
	return r.Known[:1]
}

// predicted tells whether the rules, and nothing else, say what becomes of a pair.
func (t *table) predicted(r *row) bool {
	return !t.Measured && (r.kind() == ok || r.kind() == refused)
}

// usual returns how most of what is predicted is known.
func (t *table) usual() (how string) {
	most := 0
	for _, k := range hows() {
		if n := t.count(func(r *row) bool { return t.predicted(r) && r.Known == k }); n > most {
			how, most = k, n
		}
	}
	return how
}

// hows are the ways of knowing, which begin with different letters.
func hows() (list []string) {
	for h := semantics.Measured; h > semantics.Unknown; h-- {
		list = append(list, h.String())
	}
	return list
}

// most is how many differences are told one by one.
const most = 10

// print prints the table, as wide as the screen.
func (t *table) print(s *term.Screen) {
	columns, _ := s.Size()
	s.Textf("%s: %s", t.System, t.How)
	s.Printf("\n")
	for _, line := range t.legend() {
		if utf8.RuneCountInString(line)+2 < columns {
			s.Printf("  %s\n", line)
			continue
		}
		for _, part := range strings.Split(line, apart) {
			s.Indentf("  ", "%s", part)
		}
	}
	for _, a := range t.Absent {
		s.Textf("Left out: %s.", a)
	}
	s.Printf("\n")
	var blocks []block
	for _, g := range groups(t.Rows) {
		var grids []block
		for _, gr := range g.Grids {
			grids = append(grids, t.block(s, gr))
		}
		b := beside(grids, columns-1)
		title := address(g.First) + ", then " + address(g.Second)
		b = append(block{{title, s.Paint(term.Cyan, title)}}, b...)
		blocks = append(blocks, append(b, line{}))
	}
	for _, l := range beside(blocks, columns-1) {
		s.Printf("%s\n", strings.TrimRight(l.painted, " "))
	}
	t.summary(s)
}

// legend explains what occurs.
func (t *table) legend() (list []string) {
	list = append(list, "Rows: options of the socket that binds first. Columns: of the second.")
	opts := []symbol{{"", "-", "none"}}
	for _, name := range t.Names {
		opts = append(opts, symbol{"", letters[name], t.Option[name]})
	}
	list = append(list, texts(opts))
	list = append(list, texts(t.symbols()))
	if marks := t.marks(); len(marks) > 0 {
		list = append(list, texts(marks))
	}
	return list
}

// apart is between the symbols of a legend.
const apart = "   "

func texts(list []symbol) string {
	var b strings.Builder
	for _, s := range list {
		b.WriteString(strings.TrimSpace(s.symbol+" "+s.text) + apart)
	}
	return strings.TrimSpace(b.String())
}

type symbol struct{ kind, symbol, text string }

// symbols are those that occur.
func (t *table) symbols() []symbol {
	return slices.DeleteFunc([]symbol{
		{ok, "ok", "both"}, {refused, "x", t.errnos("x")}, {refused, "a", t.errnos("a")}, {refused, "l", "listen fails"},
		{unmade, ".", "not even one"}, {unknown, "?", "not known"},
	}, func(k symbol) bool { return t.count(func(r *row) bool { return r.symbol() == k.symbol }) == 0 })
}

// errnos are the errors that a symbol stands for.
func (t *table) errnos(symbol string) string {
	var names []string
	for i := range t.Rows {
		r := &t.Rows[i]
		if r.symbol() != symbol {
			continue
		}
		name := r.Outcome[strings.LastIndex(r.Outcome, ":")+1:]
		if strings.HasPrefix(r.OS, "windows") {
			name = "WSA" + name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// marks are what occurs beside symbols.
func (t *table) marks() (list []symbol) {
	if t.differences() > 0 {
		list = append(list, symbol{"", "!", "not what the rules say"})
	}
	for _, k := range hows() {
		if t.count(func(r *row) bool { return t.predicted(r) && r.Known == k }) == 0 {
			continue
		}
		mark := symbol{"", k[:1], k}
		if k == t.Usual {
			mark.symbol, mark.text = "", "without a mark: "+k
		}
		list = append(list, mark)
	}
	return list
}

// counts says how many pairs there are of which kind, and how many differ.
func (t *table) counts() (kinds, verdict string) {
	count := func(k string) int { return t.count(func(r *row) bool { return r.kind() == k }) }
	kinds = fmt.Sprintf("%s of binds: %s both, %s refused", term.Count(len(t.Rows), "pair"), term.Number(count(ok)), term.Number(count(refused)))
	if n := count(unmade); n > 0 {
		kinds += fmt.Sprintf(", %s impossible", term.Number(n))
	}
	if n := count(unknown); n > 0 {
		kinds += fmt.Sprintf(", %s not known", term.Number(n))
	}
	verdict = term.Count(t.differences(), "difference") + " from the rules of " + t.Rules
	if n := t.count(func(r *row) bool { return r.documented == "" }); n > 0 {
		verdict += fmt.Sprintf(", which do not say for sure what becomes of %s", term.Count(n, "pair"))
	}
	return kinds + ".", verdict + "."
}

// summary counts, and tells the differences.
func (t *table) summary(s *term.Screen) {
	kinds, verdict := t.counts()
	s.Textf("%s", kinds)
	if !t.Measured {
		t.sources(s)
		return
	}
	s.Textf("%s", verdict)
	differences := t.differences()
	if differences == 0 {
		return
	}
	s.Printf("\n")
	told := 0
	for i := range t.Rows {
		r := &t.Rows[i]
		if !r.differs() {
			continue
		}
		if told++; told > most {
			s.Indentf("  ", "... and %s more; -json has all pairs", term.Number(differences-most))
			return
		}
		s.Textf("! %s", s.Paint(term.Yellow, r.sockets()))
		s.Indentf("  ", "%s; the rules: %s. %s", said(r.Outcome), said(r.documented), r.rule)
	}
}

// sources says how many pairs are known from where.
func (t *table) sources(s *term.Screen) {
	type source struct{ known, where string }
	counts := map[source]int{}
	for _, r := range t.Rows {
		counts[source{r.Known, r.Where}]++
	}
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b source) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a.known, b.known), cmp.Compare(a.where, b.where))
	}) {
		text := k.known
		if k.where != "" {
			text += ": " + k.where
		}
		s.Textf("  %5s %s", term.Number(counts[k]), text)
	}
}

// A line is text, and the same with colors.
type line struct{ plain, painted string }

func (l line) width() int { return utf8.RuneCountInString(l.plain) }

// A block is lines that stay together.
type block []line

func (b block) width() (n int) {
	for _, l := range b {
		n = max(n, l.width())
	}
	return n
}

// block is a grid in print.
func (t *table) block(s *term.Screen, g *grid) block {
	wide := 3
	for _, o := range g.Options {
		wide = max(wide, len(o))
	}
	head := fmt.Sprintf("  %*s ", wide, "")
	for _, o := range g.Options {
		head += fmt.Sprintf("%*s ", wide, o)
	}
	title := "  " + g.title()
	b := block{{title, title}, {head, head}}
	for i, cells := range g.Cells {
		first := fmt.Sprintf("  %*s ", wide, g.Options[i])
		l := line{first, first}
		for _, r := range cells {
			symbol, color := " ", term.Color(0)
			mark := " "
			if r != nil {
				symbol, mark = r.symbol(), t.mark(r)
				switch {
				case r.differs():
					color = term.Yellow
				case r.kind() == ok:
					color = term.Green
				case r.kind() == refused:
					color = term.Red
				}
			}
			text := fmt.Sprintf("%*s%s", wide, symbol, mark)
			l.plain += text
			if color != 0 {
				text = s.Paint(color, text)
			}
			l.painted += text
		}
		b = append(b, l)
	}
	return b
}

// beside puts blocks side by side as far as they fit, the rest below.
func beside(blocks []block, columns int) (all block) {
	for len(blocks) > 0 {
		n, width := 1, blocks[0].width()
		for n < len(blocks) && width+gap+blocks[n].width() <= columns {
			width += gap + blocks[n].width()
			n++
		}
		height := 0
		for _, b := range blocks[:n] {
			height = max(height, len(b))
		}
		for i := range height {
			var l line
			for j, b := range blocks[:n] {
				if j > 0 {
					l = l.pad(l.width() + gap)
				}
				start := l.width()
				if i < len(b) {
					l.plain += b[i].plain
					l.painted += b[i].painted
				}
				l = l.pad(start + b.width())
			}
			all = append(all, l)
		}
		blocks = blocks[n:]
	}
	return all
}

const gap = 2 // columns between blocks

func (l line) pad(width int) line {
	space := strings.Repeat(" ", max(width-l.width(), 0))
	return line{l.plain + space, l.painted + space}
}
