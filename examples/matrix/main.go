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

// tries is how often a difference is measured: another process may take the port.
const tries = 3

var letters = map[string]string{"addr": "A", "port": "P", "lb": "L", "excl": "E", "shareuid": "U"}

// A row is what became of a pair, and what should have by the rules.
type row struct {
	measure.Row
	rules string // "": the rules do not say
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
		if !*asJSON {
			show(s, rows)
		}
		for lines, i := json.NewEncoder(term.Out), 0; *asJSON && i < len(rows); i++ {
			_ = lines.Encode(rows[i].Row) // Main returns the error
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
	all := measure.Pairs(s)
	pairs := all
	if name == "" {
		if pairs, _ = measure.Usable(all); len(pairs) == 0 {
			return s, nil, errors.New("nothing can be bound here")
		}
		if n := len(all) - len(pairs); n > 0 {
			fmt.Fprintf(os.Stderr, "matrix: %d pairs left out, with an address that this machine lacks\n", n)
		}
	}
	for _, p := range pairs {
		first, second := p.Bindings(uid, uid)
		answer := s.Bind(first, second)
		r := row{Row: p.Row(cmp.Or(name, runtime.GOOS), release, measure.Outcome(answer))}
		if answer.Evidence.Kind > semantics.Unsure {
			r.rules = r.Outcome
		}
		for i := 0; name == "" && i < tries && (i == 0 || r.differs()); i++ {
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
	names := "none"
	for _, o := range s.Options() {
		names += fmt.Sprintf(", %s %s", letters[o.String()], s.OptionName(o))
	}
	term.Say("Two sockets on one port, %s %s. Rules: %s.", rows[0].OS, cmp.Or(rows[0].Release, "by the rules"), s.Title())
	term.Say("Rows: options of the first socket. Columns: of the second. - %s.", names)
	term.Say("ok both have the port, x EADDRINUSE, e another error, l listen fails, . the first or an option fails, ? unverified, ! not what the rules say.")
	size := len(s.Subsets())
	var tables []string
	places := map[[2]string]string{} // of a table and protocol
	for ; len(rows) > 0; rows = rows[size*size:] {
		t, r := table(rows[:size*size], size), rows[0]
		if !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
		places[[2]string{t, r.Proto + " " + r.State}] += "; " + address(r.First) + " then " + address(r.Second)
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
	var text strings.Builder
	for i := -1; i < size; i++ {
		for j := -1; j < size; j++ {
			cell := ""
			switch {
			case i >= 0 && j >= 0:
				cell = symbol(rows[i*size+j])
			case i >= 0:
				cell = label(rows[i*size].A)
			case j >= 0:
				cell = label(rows[j].B)
			}
			fmt.Fprintf(&text, "%4s", cell)
		}
		text.WriteString("\n")
	}
	return text.String()
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
	if text == "" {
		return "-"
	}
	return text
}

func address(a measure.Address) string {
	ip, only := a.IP()
	if only && ip.IsUnspecified() {
		return ip.String() + " (v6only)"
	}
	return ip.String()
}
