package inuse

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

// rows is the number of holders that String lists.
const rows = 20

// String returns the report as several lines for a person, harmless to print: the
// address, a table of the first 20 Holders, the Reason, and a line for each Advice.
func (r *Report) String() string {
	var b strings.Builder
	if title := strings.TrimSpace(r.Network + " " + r.Address); title != "" {
		fmt.Fprintln(&b, printable(title))
	}
	if len(r.Holders) > 0 {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "\nSTATE\tLOCAL\tREMOTE\tUID\tPID\tCOMMAND")
		for _, h := range r.Holders[:min(rows, len(r.Holders))] {
			local, remote, uid, pid := h.place(), "-", "?", "?"
			if h.Device != "" {
				local += " on " + printable(h.Device)
			}
			if h.Remote.IsValid() {
				remote = printable(h.Remote.String())
			}
			if h.outside {
				uid = "outside"
			} else if h.UID >= 0 {
				uid = strconv.Itoa(h.UID)
			}
			if h.PID != 0 {
				pid = strconv.Itoa(h.PID)
			} else if h.orphan {
				pid = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(h.State), local, remote, uid, pid, cmp.Or(printable(h.Command), "-"))
		}
		w.Flush() // to a strings.Builder
		if n := len(r.Holders) - rows; n > 0 {
			fmt.Fprintf(&b, "and %d more\n", n)
		}
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "\n%s\n", r.Reason)
	}
	for i, a := range r.Advice {
		fmt.Fprintf(&b, "%s- %s\n", "\n"[min(i, 1):], a)
	}
	return b.String()
}
