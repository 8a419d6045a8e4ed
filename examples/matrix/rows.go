//go:build !android && !ios

package main

import (
	"slices"
	"strings"

	"example.com/reuse/internal/measure"
)

// A row is what became of one pair of binds, or should by the rules. Its JSON,
// without known and where, is that of the data that the rules were written from.
type row struct {
	measure.Row

	// How the rules know, in place of a measurement.
	Known string `json:"known,omitempty"`
	Where string `json:"where,omitempty"`

	documented string // outcome by the rules, "" where they do not say
	rule       string // that decides, for a person
	basis      string // how that is known
}

// address is what a person calls an address.
func address(a measure.Address) string {
	ip, _ := a.IP()
	if a == measure.Wildcard6Only {
		return ip.String() + " (v6only)"
	}
	return ip.String()
}

// differs tells whether the kernel did not do what the rules say.
func (r *row) differs() bool { return r.documented != "" && r.documented != r.Outcome }

// Kinds of outcomes.
const (
	ok      = "ok"
	refused = "refused" // the second socket
	unmade  = "unmade"  // the first socket, or an option of either: there is no pair
	unknown = "unknown"
)

func (r *row) kind() string {
	switch {
	case r.Outcome == "ok":
		return ok
	case r.Outcome == "":
		return unknown
	case strings.HasPrefix(r.Outcome, "b:bind:"), strings.HasPrefix(r.Outcome, "b:listen:"):
		return refused
	}
	return unmade
}

// symbol is the outcome in two characters.
func (r *row) symbol() string {
	switch r.kind() {
	case ok:
		return "ok"
	case unknown:
		return "?"
	case unmade:
		return "."
	}
	if strings.HasPrefix(r.Outcome, "b:listen:") {
		return "l"
	}
	if strings.HasSuffix(r.Outcome, "EADDRINUSE") {
		return "x"
	}
	return "a"
}

// said is the outcome in words.
func said(outcome string) string {
	socket, rest, _ := strings.Cut(outcome, ":")
	call, errno, found := strings.Cut(rest, ":")
	switch {
	case outcome == "":
		return "not known"
	case !found:
		return outcome
	case socket == "a":
		return "the first socket fails: " + call + ": " + errno
	}
	return call + ": " + errno
}

// sockets says which two sockets it is about.
func (r *row) sockets() string {
	verb := "is bound"
	if r.State == "listening" {
		verb = "listens"
	}
	with := func(opts []string) string {
		if len(opts) == 0 {
			return ""
		}
		return " with " + strings.Join(opts, "+")
	}
	return r.Proto + " " + address(r.First) + with(r.A) + " " + verb + ", then " + address(r.Second) + with(r.B)
}

// A group is all the rows of a pair of addresses.
type group struct {
	First, Second measure.Address
	Grids         []*grid
}

// A grid is its rows of one protocol and state: the options of the first socket
// downwards, those of the second to the right.
type grid struct {
	Proto, State string
	Options      []string // labels
	sets         [][]string
	Cells        [][]*row // nil where there is no such row
}

func (g *grid) title() string {
	if g.Proto == "udp" {
		return "UDP"
	}
	return strings.ToUpper(g.Proto) + " " + g.State
}

// groups arranges rows, in the order in which they come.
func groups(rows []row) (list []*group) {
	var options []string
	var sets [][]string
	for i := range rows {
		for _, set := range [][]string{rows[i].A, rows[i].B} {
			if o := label(set); !slices.Contains(options, o) {
				options = append(options, o)
				sets = append(sets, set)
			}
		}
	}
	for i := range rows {
		r := &rows[i]
		n := slices.IndexFunc(list, func(g *group) bool { return g.First == r.First && g.Second == r.Second })
		if n < 0 {
			n = len(list)
			list = append(list, &group{First: r.First, Second: r.Second})
		}
		g := list[n]
		n = slices.IndexFunc(g.Grids, func(g *grid) bool { return g.Proto == r.Proto && g.State == r.State })
		if n < 0 {
			n = len(g.Grids)
			cells := make([][]*row, len(options))
			for i := range cells {
				cells[i] = make([]*row, len(options))
			}
			g.Grids = append(g.Grids, &grid{r.Proto, r.State, options, sets, cells})
		}
		g.Grids[n].Cells[slices.Index(options, label(r.A))][slices.Index(options, label(r.B))] = r
	}
	return list
}

// letters stand for options in the tables.
var letters = map[string]string{"addr": "A", "port": "P", "lb": "L", "excl": "E", "shareuid": "U"}

// label is the letters of some options.
func label(opts []string) string {
	if len(opts) == 0 {
		return "-"
	}
	var b strings.Builder
	for _, o := range opts {
		b.WriteString(letters[o])
	}
	return b.String()
}
