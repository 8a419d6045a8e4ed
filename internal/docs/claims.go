//go:build !android && !ios

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

// A claim is a statement of one of the documents A to D.
type claim struct {
	title string
	says  string // which documents say what, in our words
	about func(semantics.System) bool
	judge func(semantics.System) finding
	tests []string // package.Test, run in CI on Linux
}

// present are the systems that most claims are weighed for: those that have
// socket options, and are run today.
func present(s semantics.System) bool {
	return len(s.Options()) > 0 && !slices.Contains([]string{"linux-3.8", "windows-2000"}, s.Name())
}

func withPort(s semantics.System) bool { return present(s) && s.OptionName(semantics.Port) != "" }

func named(names ...string) func(semantics.System) bool {
	return func(s semantics.System) bool { return slices.Contains(names, s.Name()) }
}

// claims are all of them; claim n is the n-1st.
func claims() []claim {
	rows := []string{"internal/measure.TestRulesOneProcess", "internal/measure.TestRulesTwoProcesses", "internal/semantics.TestRows"}
	users := "internal/measure.TestRulesAnotherUser"
	return []claim{
		{"The kernel closes what a dead process had open, and keeps TIME_WAIT",
			"A and D: sockets of a process that has died are closed for it. What can stay is the end of a connection in TIME_WAIT, for twice the maximum segment lifetime: half a minute to two minutes.",
			present, judgeDead, []string{"internal/docs.TestKilledProcess"}},
		{"Without SO_REUSEADDR a server cannot restart while TIME_WAIT lasts",
			"A and B: bind fails while such ends remain. With SO_REUSEADDR it succeeds at once, on every Unix and on Windows.",
			present, func(s semantics.System) finding {
				return judgeRestart(s, true, remark(s, semantics.Restart), semantics.TimeWait)
			},
			[]string{"examples/timewait.TestJSON", "examples/timewait.TestRules", "internal/semantics.TestLinuxLeftovers"}},
		{"So it is while a child still serves a connection",
			"B: the parent, which listened, is gone; a forked child has an established connection. Binding again takes SO_REUSEADDR.",
			present, func(s semantics.System) finding { return judgeRestart(s, true, "", semantics.Established) },
			[]string{"examples/timewait.TestJSON", "examples/timewait.TestRules", "internal/semantics.TestLinuxLeftovers"}},
		{"Two small servers show both",
			"B has two C programs, one without and one with SO_REUSEADDR, and what netstat listed meanwhile. Here it is `go run ./examples/timewait`, which lists what the kernel has by itself.",
			present, judgeShown, []string{"examples/timewait.TestTable", "examples/timewait.TestJSON", "examples/timewait.TestLesson"}},
		{"For UDP, SO_REUSEADDR is for multicast: every member gets a copy",
			"B: several sockets bind a group's port, join, and each one gets every multicast or broadcast datagram.",
			present, judgeCopies, []string{"internal/docs.TestMulticastCopies", "internal/docs.TestMulticastAll", "examples/multicast.TestBothReceiversGetAll"}},
		{"A wildcard conflicts with every specific address, unless the second sets SO_REUSEADDR",
			"C, of BSD: in either order, and shown by a table of eight rows. The same address twice is always refused, two specific addresses never are.",
			present, judgeTable, rows},
		{"Only the second socket's SO_REUSEADDR counts",
			"C: what the first one has set makes no difference.",
			present, judgeSecondOnly, rows},
		{"SO_REUSEPORT lets any number share an address, if all set it before bind",
			"C: the first one included.",
			withPort, judgePort, slices.Concat(rows, []string{users, "internal/docs.TestSetLate"})},
		{"SO_REUSEPORT does not imply SO_REUSEADDR",
			"C: a socket that sets SO_REUSEPORT alone does not get what SO_REUSEADDR would give it.",
			withPort, judgeImplied, slices.Concat(rows, []string{"internal/semantics.TestLinuxLeftovers"})},
		{"A second connection with the same five-tuple fails with EADDRINUSE",
			"C: connect fails so. A comment there says that it is EADDRNOTAVAIL.",
			present, judgeTuple, []string{"internal/docs.TestSameTuple", ".TestDialFromListeningPort"}},
		{"For a multicast address both options mean the same",
			"C. A comment makes an exception of macOS, unless the socket is bound to the group's address.",
			withPort, judgeGroup, rows},
		{"FreeBSD, OpenBSD, NetBSD, macOS and iOS behave as BSD did",
			"C: as the table for BSD says, with tvOS and watchOS, of which nothing is known here. BSD is taken to be: beside another address the second's options decide; on the same address both need SO_REUSEPORT; users make no difference.",
			named("freebsd", "freebsd-14", "openbsd", "netbsd", "dragonfly", "darwin", "ios"), judgeBSD, nil},
		{"Linux before 3.9: no SO_REUSEPORT, and SO_REUSEADDR is void beside a listener",
			"C: between client sockets, SO_REUSEADDR does what SO_REUSEPORT did on BSD.",
			named("linux-3.8"), judgeOldLinux, []string{"internal/semantics.TestRows"}},
		{"Linux from 3.9: SO_REUSEPORT as on BSD, for one user, and evenly spread",
			"C: the sockets must belong to one effective user, and the kernel gives each the same share of connections and datagrams.",
			named("linux"), judgeNewLinux, []string{"internal/measure.TestRulesOneProcess", users, ".TestPortLBSpreads", "internal/docs.TestSpreadByHash"}},
		{"On Linux both sockets must set SO_REUSEADDR, and neither may listen",
			"C, comments: and of those that share so, the first one to listen wins.",
			named("linux", "linux-3.8"), judgeBoth, []string{"internal/measure.TestRulesOneProcess", "internal/docs.TestFirstToListen"}},
		{"Android is Linux",
			"C: the same rules.",
			named("android"), judgeAndroid, []string{"internal/semantics.TestAndroid"}},
		{"On Windows SO_REUSEADDR means both, and SO_EXCLUSIVEADDRUSE prevents it",
			"C: SO_REUSEADDR lets a socket share any address; before Server 2003 even one whose owner had not set it. SO_EXCLUSIVEADDRUSE is the defence. A comment adds that TIME_WAIT does not block a bind, with no option.",
			named("windows", "windows-2000"), judgeWindows, nil},
		{"Solaris has SO_REUSEADDR only; SO_EXCLBIND makes a socket immune to it",
			"C. A comment there knows of SO_REUSEPORT in Solaris 11.",
			named("illumos", "solaris-11.4", "solaris"), judgeSolaris, nil},
		{"FreeBSD from 12: SO_REUSEPORT_LB balances as SO_REUSEPORT does on Linux",
			"C, the second answer.",
			named("freebsd", "freebsd-14"), judgeLB, nil},
		{"For any other system, a program can find out",
			"C has a test program for it: TCP and UDP, bound, listening and multicast sockets, each option on either or both, every pair of wildcard, loopback and another address. Here it is `go run ./examples/matrix`, which also compares what it finds with the rules.",
			present, judgeProgram, []string{"examples/matrix.TestRunning", "examples/matrix.TestDifferences", "internal/measure.TestRulesOneProcess"}},
		{"Left open in comments: lingering, sockets that do not listen, connected sockets",
			"C, comments, put as statements: only lingering for no time avoids TIME_WAIT; a socket that is bound and does not listen gets no connections beside a listener; datagrams of a peer go to the socket that is connected to it, first.",
			present, judgeOpen, []string{"internal/docs.TestLinger", "internal/docs.TestBoundOnly", "internal/docs.TestConnectedFirst"}},
	}
}

// shown are the systems of the table at the top of the page, by their headings.
func shown() [][2]string {
	return [][2]string{
		{"Linux", "linux"}, {"FreeBSD 14", "freebsd-14"}, {"OpenBSD", "openbsd"}, {"NetBSD", "netbsd"}, {"DragonFly", "dragonfly"},
		{"macOS", "darwin"}, {"Windows", "windows"}, {"illumos", "illumos"}, {"Solaris", "solaris-11.4"}, {"AIX", "aix"},
	}
}

func claimsPage() string {
	var p page
	p.WriteString(generated)
	p.par("# What is said of these options, and what is true")
	p.par("Four documents are widely read. **A** is a question with answers on when a server needs SO_REUSEADDR; **B** a note in Chinese with two small servers in C, and answers below it; **C** the long answer that explains how SO_REUSEADDR and SO_REUSEPORT differ from system to system, with its comments and a second answer; **D** a page on what becomes of a dead server's socket. Here is what they claim, in our words, and a verdict for each system.")
	p.par("A verdict is worked out from the rules of [semantics.md](semantics.md) where they decide it. *Wrong*: the rules contradict the claim as it stands. *True with limits*: they do so only where it says nothing, or not clearly. For Linux, tests show it on the running kernel: `go test -run NAME ./PACKAGE`. js, wasip1 and Plan 9 have no socket options, so nothing is claimed of them. Nor of gVisor, whose GOOS is linux and whose rules are not Linux': [processes.md](processes.md#gvisor). The signs are those of [semantics.md](semantics.md#how-to-read-it).")
	p.par("## The claims")
	var items []string
	for i, c := range claims() {
		items = append(items, link(c.heading(i+1)))
	}
	p.list(items)
	p.par("## At a glance")
	p.par("?: not known. –: the system lacks the option.")
	general := [][]string{{"claim"}}
	for _, s := range shown() {
		general[0] = append(general[0], s[0])
	}
	special := [][]string{{"claim", "which is of some systems only"}}
	for i, c := range claims() {
		row := []string{fmt.Sprintf("[%d](%s)", i+1, anchor(c.heading(i+1)))}
		if !c.general() {
			special = append(special, append(row, strings.Join(c.verdicts(), "; ")))
			continue
		}
		for _, s := range shown() {
			row = append(row, c.short(s[1]))
		}
		general = append(general, row)
	}
	p.table(general)
	p.table(special)
	for i, c := range claims() {
		p.par("## %s", c.heading(i+1))
		p.par("%s", c.says)
		p.list(c.findings())
		if len(c.tests) > 0 {
			p.par("Tests: %s.", strings.Join(c.testNames(), ", "))
		}
	}
	return strings.TrimRight(p.String(), "\n") + "\n"
}

// general says that a claim is about systems of every family.
func (c claim) general() bool {
	all := semantics.Systems()
	return slices.ContainsFunc(all, func(s semantics.System) bool { return s.Name() == "linux" && c.about(s) }) &&
		slices.ContainsFunc(all, func(s semantics.System) bool { return s.Name() == "openbsd" && c.about(s) })
}

// short is a verdict in one word.
func (c claim) short(system string) string {
	for _, s := range semantics.Systems() {
		if s.Name() != system || !c.about(s) {
			continue
		}
		switch v := c.judge(s).verdict; v {
		case limits:
			return "limits"
		case unknown:
			return "?"
		default:
			return string(v)
		}
	}
	return "–"
}

// verdicts lists the systems that a claim is about by their verdicts.
func (c claim) verdicts() []string {
	var list []string
	systems := map[verdict][]string{}
	for _, s := range semantics.Systems() {
		if c.about(s) {
			v := c.judge(s).verdict
			systems[v] = append(systems[v], s.Title())
		}
	}
	for _, v := range []verdict{holds, limits, wrong, unknown} {
		if len(systems[v]) > 0 {
			list = append(list, strings.Join(systems[v], ", ")+": "+string(v))
		}
	}
	return list
}

// testNames names the tests and the folder of each.
func (c claim) testNames() []string {
	var names []string
	for _, name := range c.tests {
		dir, test, _ := strings.Cut(name, ".")
		names = append(names, fmt.Sprintf("`%s` in %s", test, cmp.Or(dir, "the root folder")))
	}
	return names
}

func (c claim) heading(n int) string { return fmt.Sprintf("%d. %s", n, c.title) }

// findings lists the verdicts; systems with the same one for the same reason
// have one item.
func (c claim) findings() []string {
	type group struct {
		finding
		systems []string
	}
	var groups []*group
	for _, s := range semantics.Systems() {
		if !c.about(s) {
			continue
		}
		f := c.judge(s)
		i := slices.IndexFunc(groups, func(g *group) bool { return g.verdict == f.verdict && g.why == f.why })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{finding{f.verdict, f.why, &origins{}}, nil})
		}
		groups[i].systems = append(groups[i].systems, s.Title())
		for _, k := range f.from.all {
			groups[i].from.add(k)
		}
	}
	var items []string
	for _, g := range groups {
		item := fmt.Sprintf("**%s: %s.** %s", strings.Join(g.systems, ", "), g.verdict, g.why)
		if len(g.from.all) > 0 && g.verdict != unknown {
			item += " (" + g.from.where() + ")"
		}
		items = append(items, item)
	}
	return items
}
