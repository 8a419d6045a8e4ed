//go:build !android && !ios

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"example.com/reuse/internal/implied"
	"example.com/reuse/internal/semantics"
)

// README has the table between these two lines.
const (
	tableBegins = "<!-- go generate (internal/docs) writes from here -->\n"
	tableEnds   = "<!-- to here -->\n"
)

// writeTable replaces the table of a file.
func writeTable(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table", file)
	}
	return os.WriteFile(file, []byte(before+tableBegins+optionTable()+tableEnds+after), 0o644)
}

// optionTable says which option each field of Config is, on each system.
func optionTable() string {
	var p page
	var n notes
	table := [][]string{{"", "Addr<br>SO_REUSEADDR", "Port<br>SO_REUSEPORT", "PortLB", "Exclusive", "DeferPort"}}
	for _, s := range semantics.Systems() {
		if !current(s) {
			continue
		}
		cells := fieldCells(s, &n)
		i := slices.IndexFunc(table, func(row []string) bool { return slices.Equal(row[1:], cells) })
		if i < 0 {
			table = append(table, slices.Concat([]string{shortTitle(s)}, cells))
		} else if names := strings.Split(table[i][0], ", "); !slices.Contains(names, shortTitle(s)) {
			table[i][0] += ", " + shortTitle(s)
		}
	}
	p.WriteString("\n")
	p.table(table)
	for i, note := range n {
		fmt.Fprintf(&p, "%d. %s\n", i+1, note)
	}
	p.WriteString("\n")
	return p.String()
}

// current says that Go runs on these versions of a system.
func current(s semantics.System) bool {
	return s.Name() != "linux-3.8" && s.Name() != "windows-2000"
}

// shortTitle leaves the versions out where the table has only one row for them.
func shortTitle(s semantics.System) string {
	switch s.Name() {
	case "linux":
		return "Linux"
	case "freebsd", "freebsd-14":
		return "FreeBSD"
	case "windows":
		return "Windows"
	case "aix":
		return "AIX"
	}
	return s.Title()
}

// notes are what a table has no room for.
type notes []string

// add returns the sign of a note. A text has one number, wherever it is used.
func (n *notes) add(text string) string {
	text = strings.ToUpper(text[:1]) + text[1:] + "."
	i := slices.Index(*n, text)
	if i < 0 {
		i = len(*n)
		*n = append(*n, text)
	}
	return fmt.Sprintf("%s[%d]", nbsp, i+1)
}

// fieldCells is a row of the table: the option that each field is, yes where the
// heading has it, or a dash.
func fieldCells(s semantics.System, n *notes) []string {
	cells := slices.Repeat([]string{"–"}, 5)
	if s.OptionName(semantics.Addr) != "" {
		cells[0] = "yes"
		if s.Name() == "windows" {
			cells[0] += n.add("lets another process take the port (Microsoft, \"Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE\"), so it is never used in place of SO_REUSEPORT")
		}
	}
	if s.OptionName(semantics.Port) != "" {
		cells[1] = "yes"
	}
	if where(s, implied.Balances) != "nowhere" {
		option := semantics.Port
		if s.OptionName(semantics.LB) != "" {
			option = semantics.LB
		}
		cells[2] = s.OptionName(option)
		if why := partly(s); why[0] != "" {
			cells[2] += n.add(why[0])
		}
	}
	if where(s, implied.Exclusive) != "nowhere" {
		cells[3] = cmp.Or(s.OptionName(semantics.Excl), "no option needed")
		if where(s, implied.Exclusive) == "IPv4 address, IPv6 address" {
			cells[3] = "a specific address"
		}
		if why := partly(s); why[1] != "" {
			cells[3] += n.add(why[1])
		}
	}
	for _, option := range deferred(s) {
		option, _, _ = strings.Cut(option, " from ")
		cells[4] = "yes" + n.add(option)
	}
	return cells
}

// partly says why PortLB and Exclusive do not hold for every socket of a system: what
// the error of package reuse says, which a test of its compares.
func partly(s semantics.System) (why [2]string) {
	switch strings.TrimSuffix(s.Name(), "-14") {
	case "freebsd":
		why[0] = `a dual-stack socket joins no load-balancing group; use network "tcp4" or "tcp6" ("udp4", "udp6")`
	case "dragonfly":
		why[0] = `SO_REUSEPORT spreads IPv4 only; use network "tcp4" or "udp4"`
	case "linux", "android":
		why[1] = `not TCP on 0.0.0.0 or an IPv6-only ::, nor UDP except on a dual-stack ::, where another user can take the traffic of this address in several binds; listen with network "tcp" or "udp" on ":port", or on a port that other users may not bind, by default one below 1024, where every listener is exclusive`
	case "openbsd", "netbsd", "darwin", "ios":
		why[1] = "a socket with SO_REUSEADDR may still bind beside a wildcard or connected one; listen on a specific address"
	}
	return why
}
