package inuse

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

// rows is how many holders String lists.
const rows = 20

// String returns the report as several lines for a person, each of which ends in
// a newline, harmless to print.
func (r *Report) String() string {
	var b strings.Builder
	if title := strings.TrimSpace(r.Network + " " + r.Address); title != "" {
		fmt.Fprintln(&b, printable(title))
	}
	if len(r.Holders) > 0 {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "\nSTATE\tLOCAL\tREMOTE\tUID\tPID\tCOMMAND")
		for _, h := range r.Holders[:min(rows, len(r.Holders))] {
			remote, uid, pid, command := "-", "?", "?", "-"
			if h.Remote.IsValid() {
				remote = printable(h.Remote.String())
			}
			if h.UID >= 0 {
				uid = strconv.Itoa(h.UID)
			}
			switch {
			case h.PID != 0:
				pid = strconv.Itoa(h.PID)
			case h.orphan:
				pid = "-"
			}
			if h.Command != "" {
				command = printable(h.Command)
			}
			local := printable(h.Local.String())
			if h.Device != "" {
				local += " on " + printable(h.Device)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(h.State), local, remote, uid, pid, command)
		}
		w.Flush() // to a strings.Builder
		if n := len(r.Holders) - rows; n > 0 {
			fmt.Fprintf(&b, "and %d more\n", n)
		}
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "\n%s\n", fill("", r.Reason))
	}
	if len(r.Advice) > 0 {
		b.WriteByte('\n')
	}
	for _, a := range r.Advice {
		fmt.Fprintln(&b, fill("- ", a))
	}
	return b.String()
}

// fill breaks text between words into lines that are good to read. The first begins
// with a mark and the others are indented as far.
func fill(mark, text string) string {
	const columns = 76
	var b strings.Builder
	b.WriteString(mark)
	indent, width := strings.Repeat(" ", len(mark)), 0
	for _, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case width == 0:
		case len(mark)+width+1+n > columns:
			b.WriteString("\n" + indent)
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}
