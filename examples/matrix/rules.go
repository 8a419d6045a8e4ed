//go:build !android && !ios

package main

import (
	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
)

func newTable(s semantics.System) *table {
	t := &table{System: s.Title(), Rules: s.Title(), Option: map[string]string{}}
	for _, o := range s.Options() {
		t.Names = append(t.Names, o.String())
		t.Option[o.String()] = s.OptionName(o)
	}
	return t
}

// ask returns what the rules say of a pair, in a row without its outcome.
func ask(s semantics.System, p measure.Pair, first, second int) (row, semantics.Answer) {
	a := s.Second(p.Bindings(first, second))
	r := row{Row: p.Row(s.Name(), "", first == second, ""), rule: a.Rule.Text, basis: a.Known.String()}
	if a.Known.How != semantics.Unsure { // what nobody is sure of cannot be contradicted
		r.documented = measure.Outcome(a)
	}
	return r, a
}

// predicted returns the table of a system that need not be the running one.
func predicted(s semantics.System, second int) *table {
	t := newTable(s)
	t.How = "what the rules say of two sockets of one user; nothing was bound."
	if second != user {
		t.How = "what the rules say of two sockets of two users; nothing was bound."
	}
	for _, p := range measure.Pairs(s) {
		r, a := ask(s, p, user, second)
		r.Outcome, r.Known, r.Where = measure.Outcome(a), a.Known.How.String(), a.Known.Where
		t.Rows = append(t.Rows, r)
	}
	t.Usual = t.usual()
	return t
}

// user is any one but root.
const user = 1000
