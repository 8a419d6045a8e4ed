//go:build (unix || windows) && !android && !ios

// Matrix binds every pair of sockets to one port: every pair of addresses and of option
// sets, for TCP and UDP. It shows which of them the running kernel lets share the port, and
// where that is not what the documented rules say.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/matrix [-json] [-os name]

Binds two sockets to one port, on loopback, with each pair of addresses and of
options, and compares with the documented rules. A table is printed once, with
all protocols and addresses that it holds for. It runs on Unix and Windows.

Exit status: 0 if the kernel does what the rules say, 1 if not, 2 if this could
not be done.

`

var letters = map[string]string{"addr": "A", "port": "P", "lb": "L", "excl": "E", "shareuid": "U"}

// names are those of the addresses in JSON.
var names = map[semantics.Binding]string{
	measure.Specific: "specific", measure.Specific2: "specific2", measure.Wildcard: "wildcard", measure.Multicast: "multicast",
	measure.Dual: "wildcard6", measure.Wildcard6: "wildcard6only", measure.Specific6: "specific6",
}

// addresses are the pairs of addresses.
var addresses = []measure.Pair{
	{measure.Specific, measure.Specific}, {measure.Wildcard, measure.Specific}, {measure.Specific, measure.Wildcard},
	{measure.Wildcard, measure.Wildcard}, {measure.Multicast, measure.Multicast}, {measure.Specific, measure.Specific2},
	{measure.Dual, measure.Wildcard}, {measure.Wildcard, measure.Dual}, {measure.Wildcard6, measure.Wildcard},
	{measure.Dual, measure.Dual}, {measure.Dual, measure.Specific}, {measure.Specific6, measure.Dual},
}

// A row is what became of a pair, and what should have by the rules.
type row struct {
	OS      string   `json:"os"`
	Release string   `json:"release"`
	Proto   string   `json:"proto"`
	State   string   `json:"state"`
	First   string   `json:"a_addr"`
	Second  string   `json:"b_addr"`
	A       []string `json:"a_opts"`
	B       []string `json:"b_opts"`
	SameUID bool     `json:"same_uid"`
	Outcome string   `json:"outcome"`

	pair  measure.Pair
	rules string // "": the rules do not say
}

func rowName(b semantics.Binding) string {
	return names[semantics.Binding{Addr: b.Addr, V6Only: b.V6Only}]
}

// list returns the names of some options. It is not nil, which JSON would write as null.
func list(all semantics.Options) []string {
	return strings.FieldsFunc(all.String(), func(r rune) bool { return r == '+' || r == '-' })
}

func (r row) differs() bool { return r.rules != "" && r.rules != r.Outcome }

func main() {
	system := flag.String("os", "", "bind nothing; show the rules of the system `name`")
	asJSON := flag.Bool("json", false, "print each pair as a line of JSON")
	term.Main(help, 0, func() error {
		s, rows, err := matrix(*system)
		if err != nil {
			return err
		}
		if *asJSON {
			lines := json.NewEncoder(term.Out)
			for _, r := range rows {
				_ = lines.Encode(r) // Main returns the error
			}
		} else {
			show(s, rows)
		}
		if n := len(slices.DeleteFunc(rows, func(r row) bool { return !r.differs() })); n > 0 {
			return term.No("%d differences from the rules", n)
		}
		return nil
	})
}

// matrix measures the running system, or has the rules of another one in place of that.
func matrix(name string) (s semantics.System, rows []row, err error) {
	release, uid := "", 1000 // any user but root
	if name == "" {
		uid = os.Getuid()
		s, release, err = semantics.Running()
	} else {
		s, err = semantics.Find(name)
	}
	if err != nil {
		return s, nil, err
	}
	all := measure.Pairs(s, addresses)
	pairs := all
	if name == "" {
		if pairs = measure.Usable(all); len(pairs) == 0 {
			return s, nil, errors.New("nothing can be bound here")
		}
		if n := len(all) - len(pairs); n > 0 {
			fmt.Fprintf(os.Stderr, "matrix: %d pairs left out, with an address that this machine lacks\n", n)
		}
	}
	for _, p := range pairs {
		p[0].User, p[1].User = uid, uid
		answer := s.Bind(p[0], p[1])
		a, b := p[0], p[1]
		r := row{
			cmp.Or(name, runtime.GOOS), release, a.Proto.String(), a.State.String(), rowName(a), rowName(b),
			list(a.Options), list(b.Options), true, measure.Outcome(answer), p, "",
		}
		if answer.Evidence.Kind > semantics.Unsure {
			r.rules = r.Outcome
		}
		for i := 0; name == "" && i < 3 && (i == 0 || r.differs()); i++ { // another process can have taken the port
			if r.Outcome, err = measure.Measure(p, measure.Bind); err != nil {
				return s, nil, fmt.Errorf("%v: %w", p, err)
			}
		}
		rows = append(rows, r)
	}
	return s, rows, nil
}

// show prints each table that occurs, and where it holds.
func show(s semantics.System, rows []row) {
	options := "none"
	for _, o := range s.Options().List() {
		options += fmt.Sprintf(", %s %s", letters[o.String()], s.OptionName(o))
	}
	term.Say("Two sockets on one port, %s %s. Rules: %v.", rows[0].OS, cmp.Or(rows[0].Release, "by the rules"), s)
	term.Say("Rows: options of the first socket. Columns: of the second. - %s.", options)
	term.Say("ok both have the port, x EADDRINUSE, e another error, l listen fails, . the first or an option fails, ? unverified, ! not what the rules say.")
	size := len(s.Subsets())
	var tables []string
	places := map[[2]string]string{} // of a table and protocol
	for pair := range slices.Chunk(rows, size*size) {
		t, r := table(pair, size), pair[0]
		if !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
		places[[2]string{t, r.Proto + " " + r.State}] += "; " + address(r.pair[0]) + " then " + address(r.pair[1])
	}
	for _, t := range tables {
		fmt.Fprint(term.Out, "\n", t)
		var protos, last string
		for _, proto := range []string{"tcp bound", "udp bound", "tcp listening", ""} {
			where := places[[2]string{t, proto}]
			if where != last && last != "" {
				term.Say("  %s: %s", strings.TrimPrefix(protos, ", "), strings.TrimPrefix(last, "; "))
				protos = ""
			}
			if where != "" {
				protos += ", " + proto
			}
			last = where
		}
	}
}

// table returns the table of one pair of addresses, with every set of options on each.
func table(rows []row, size int) string {
	text := "    "
	for _, r := range rows[:size] {
		text += fmt.Sprintf("%4s", label(r.B))
	}
	for line := range slices.Chunk(rows, size) {
		text += fmt.Sprintf("\n%4s", label(line[0].A))
		for _, r := range line {
			text += fmt.Sprintf("%4s", symbol(r))
		}
	}
	return text + "\n"
}

func symbol(r row) (s string) {
	socket, failed, _ := strings.Cut(r.Outcome, ":")
	switch {
	case r.Outcome == "ok":
		s = "ok"
	case r.Outcome == "":
		s = "?"
	case socket == "a", strings.HasPrefix(failed, "set-"):
		s = "."
	case strings.HasPrefix(failed, "listen:"):
		s = "l"
	case strings.HasSuffix(failed, ":EADDRINUSE"):
		s = "x"
	default:
		s = "e"
	}
	if r.differs() {
		return "!" + s
	}
	return s
}

// label returns the letters of some options.
func label(options []string) (text string) {
	for _, o := range options {
		text += letters[o]
	}
	return cmp.Or(text, "-")
}

func address(b semantics.Binding) string {
	if b.V6Only {
		return b.Addr.String() + " (v6only)"
	}
	return b.Addr.String()
}
