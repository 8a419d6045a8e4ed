//go:build !android && !ios

package main

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"example.com/reuse/internal/implied"
	"example.com/reuse/internal/semantics"
)

// topic is a section of the page about all systems.
type topic struct {
	heading string
	write   func(*page)
}

func topics() []topic {
	return []topic{
		{"How to read it", legend},
		{"Options", optionsTable},
		{"What the fields of this package can promise", promises},
		{"Who gets the traffic", traffic},
		{"Closing a listener", closing},
		{"Restart and TIME_WAIT", restart},
		{"Port 0", portZero},
		{"Both families", dualStack},
		{"Multicast", multicast},
		{"Connecting twice", connecting},
		{"Options set after the bind", late},
		{"Security: whose port can be taken", security},
	}
}

func semanticsPage() string {
	var p page
	p.WriteString(generated)
	p.par("# Who may share an address, system by system")
	p.par("Two sockets want one port. Whether the second gets it, and who then gets the traffic, is different on every system. This page is written by `go generate` from the rules in [internal/semantics](../internal/semantics), which are tested against every pair of binds that was measured. What other documents say of it is weighed in [claims.md](claims.md).")
	p.par("For the system that you have, `go run ./examples/matrix` binds every pair and compares.")
	p.par("## Contents")
	var items []string
	for _, t := range topics() {
		items = append(items, link(t.heading))
	}
	var systems []string
	for _, s := range sections() {
		systems = append(systems, link(s.heading()))
	}
	items = append(items, "System by system: "+strings.Join(systems, " · "))
	p.list(items)
	for _, t := range topics() {
		p.par("## %s", t.heading)
		t.write(&p)
	}
	p.par("## System by system")
	p.par("A second socket binds the port of a first one of the same user. 192.0.2.1 and 192.0.2.2 stand for two addresses of the machine; *then* is the order of the binds.")
	for _, s := range sections() {
		p.par("### %s", s.heading())
		p.WriteString(s.body)
	}
	return strings.TrimRight(p.String(), "\n") + "\n"
}

func legend(p *page) {
	p.table([][]string{
		{"sign", "how it is known"},
		{mark(semantics.Measured), "measured on a running kernel of that version"},
		{mark(semantics.Source), "read in the kernel's source"},
		{mark(semantics.Vendor), "the vendor's documentation"},
		{mark(semantics.Inferred), "inferred from a relative, such as Android from Linux"},
		{mark(semantics.Unsure), "unsure: sources contradict each other, or it is second-hand"},
		{notKnown, "nobody we know of has measured, read or documented it"},
	})
	p.list([]string{
		"Where a cell is about several kinds of sockets it has the sign of what is known worst.",
		"**ADDR** is SO_REUSEADDR, **PORT** SO_REUSEPORT, **LB** SO_REUSEPORT_LB (FreeBSD), **EXCL** SO_EXCLUSIVEADDRUSE (Windows) or SO_EXCLBIND (Solaris, illumos).",
		"**yes**: the second bind succeeds. **no**: it fails with EADDRINUSE (WSAEADDRINUSE on Windows). Any other error has its name there.",
		"**unless listening**: yes for UDP, and for TCP while neither socket listens; no beside a TCP listener. **UDP only**: no for TCP.",
		"**:: dual** is :: without IPV6_V6ONLY, which takes IPv4, too, where the system can do that.",
		"Users are effective users, those of the socket call.",
	})
}

// rows makes a table with a row for each system; systems with the same cells
// have one. Those that say nothing but "not known" are left for a sentence.
func rows(heading []string, cells func(s semantics.System) []string) (table [][]string, unknown []string) {
	table = [][]string{heading}
	for _, s := range semantics.Systems() {
		c := cells(s)
		if !slices.ContainsFunc(c, func(text string) bool { return text != notKnown }) {
			unknown = append(unknown, s.Title())
			continue
		}
		i := slices.IndexFunc(table, func(row []string) bool { return slices.Equal(row[1:], c) })
		if i > 0 {
			table[i][0] += ", " + s.Title()
			continue
		}
		table = append(table, append([]string{s.Title()}, c...))
	}
	return table, unknown
}

// systemTable writes such a table, and whom it says nothing of.
func systemTable(p *page, heading []string, cells func(s semantics.System) []string) {
	table, unknown := rows(heading, cells)
	p.table(table)
	if len(unknown) > 0 {
		p.par("Not known: %s.", strings.Join(unknown, ", "))
	}
}

// perSystem writes a list with an item for each system; the same text is
// written once.
func perSystem(p *page, text func(s semantics.System) string) {
	var texts []string
	systems := map[string][]string{}
	for _, s := range semantics.Systems() {
		t := text(s)
		if systems[t] == nil {
			texts = append(texts, t)
		}
		systems[t] = append(systems[t], s.Title())
	}
	var items []string
	for _, t := range texts {
		items = append(items, "**"+strings.Join(systems[t], ", ")+"**: "+t)
	}
	p.list(items)
}

// perText writes a list of what is said of each system. A text that is true of
// several is written once, with how it is known of each.
func perText(p *page, text func(s semantics.System) (string, semantics.Known)) {
	var texts []string
	systems := map[string][]string{}
	from := map[string]*origins{}
	for _, s := range semantics.Systems() {
		t, known := text(s)
		if known.How == semantics.Unknown && t == "" {
			t = "Not known."
		}
		if systems[t] == nil {
			texts = append(texts, t)
			from[t] = &origins{}
		}
		systems[t] = append(systems[t], strings.TrimRight("**"+s.Title()+"**"+nbsp+mark(known.How), nbsp))
		from[t].add(known)
	}
	slices.SortStableFunc(texts, func(a, b string) int { return cmp.Compare(unknownText(a), unknownText(b)) })
	var items []string
	for _, t := range texts {
		item := strings.Join(systems[t], ", ") + ": " + t
		if len(from[t].all) > 0 {
			item += " (" + from[t].where() + ")"
		}
		items = append(items, item)
	}
	p.list(items)
}

// unknownText is 1 for a text that says that something is not known, which comes
// last.
func unknownText(t string) int {
	if strings.HasPrefix(t, "Not known") {
		return 1
	}
	return 0
}

func facts(p *page, t semantics.Topic) {
	perText(p, func(s semantics.System) (string, semantics.Known) {
		f := s.Fact(t)
		return f.Text, f.Known
	})
}

func optionsTable(p *page) {
	p.par("The first version that has each option; *yes* where it has always been there, as far as is known.")
	has := func(s semantics.System, o semantics.Option) string {
		if s.OptionName(o) == "" {
			b := binding(variants()[0], wildcard(), semantics.Opts(o), me)
			return marked("no", s.Second(b, b).Known)
		}
		since, known := s.OptionSince(o)
		if since == "" {
			return marked("yes", known)
		}
		return marked("from "+since, known)
	}
	systemTable(p, []string{"", "SO_REUSEADDR", "SO_REUSEPORT", "its own"}, func(s semantics.System) []string {
		var own []string
		for _, o := range []semantics.Option{semantics.LB, semantics.Excl, semantics.ShareUID} {
			if name := s.OptionName(o); name != "" {
				own = append(own, name+strings.TrimPrefix(" "+has(s, o), " yes"))
			}
		}
		own = append(own, deferred(s)...)
		return []string{has(s, semantics.Addr), has(s, semantics.Port), cmp.Or(strings.Join(own, ", "), "none")}
	})
	p.par("Vendors have carried options back to older Linux kernels: set one and look at the error, not at the version.")
}

// deferred is what a system calls the option of Config.DeferPort, which decides
// nothing that the rules know of: it puts off the choice of a port.
func deferred(s semantics.System) []string {
	switch s.Name() {
	case "linux", "android":
		return []string{"IP_BIND_ADDRESS_NO_PORT from 4.2" + nbsp + mark(semantics.Vendor)}
	case "windows":
		return []string{"SO_REUSE_UNICASTPORT from 10 and Server 2016" + nbsp + mark(semantics.Vendor)}
	}
	return nil
}

func promises(p *page) {
	p.par("PortLB: several sockets bind one address, and the kernel spreads new connections over them. Exclusive: no other socket of any user gets the traffic of the address while this one lives. Both are worked out from the tables below, and from what one user can do with several binds; a test compares them with what the package promises.")
	perSystem(p, func(s semantics.System) string {
		if !current(s) {
			return "Go does not run there."
		}
		return "PortLB: " + where(s, implied.Balances) + ". Exclusive: " + where(s, implied.Exclusive) + "."
	})
	p.par("On Linux and Android any listener is exclusive on a port that other users may not bind (net.ipv4.ip_unprivileged_port_start, by default those below 1024). gVisor reports GOOS linux and has rules of its own, which are not among these: [processes.md](processes.md#gvisor).")
}

// where lists the kinds of sockets for which something holds.
func where(s semantics.System, holds func(semantics.System, semantics.Binding) bool) string {
	var list []string
	all := true
	for _, kind := range socketKinds() {
		kind.b.Proto, kind.b.State = semantics.TCP, semantics.Listening
		tcp := holds(s, kind.b)
		kind.b.Proto, kind.b.State = semantics.UDP, semantics.Bound
		udp := holds(s, kind.b)
		switch {
		case tcp && udp:
			list = append(list, kind.name)
		case tcp:
			list = append(list, kind.name+" (TCP)")
		case udp:
			list = append(list, kind.name+" (UDP)")
		}
		all = all && tcp && udp
	}
	text := cmp.Or(strings.Join(list, ", "), "nowhere")
	if all {
		text = "every listener"
	}
	dialed := semantics.Binding{Proto: semantics.TCP, State: semantics.Established, Dialed: true, Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if holds(s, dialed) {
		text += ", dialed"
		if dialed.Proto = semantics.UDP; !holds(s, dialed) {
			text += " (TCP)"
		}
	}
	return strings.Replace(text, "every listener, dialed", "every socket", 1)
}

// A socketKind is an address as the promises tell them apart.
type socketKind struct {
	name string
	b    semantics.Binding
}

func socketKinds() []socketKind {
	any6 := netip.IPv6Unspecified()
	return []socketKind{
		{"IPv4 address", semantics.Binding{Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}},
		{"0.0.0.0", semantics.Binding{Addr: netip.IPv4Unspecified()}},
		{"IPv6 address", semantics.Binding{Addr: netip.IPv6Loopback()}},
		{":: IPv6 only", semantics.Binding{Addr: any6, V6Only: true}},
		{":: dual", semantics.Binding{Addr: any6}},
	}
}

// gets says who of three sockets gets what is sent to an address, if they can
// all be bound to the place.
func gets(s semantics.System, v variant, pl, to place, o semantics.Option) (string, semantics.Known, semantics.Rule) {
	if s.OptionName(o) == "" {
		return "–", semantics.Known{How: semantics.Source}, semantics.Rule{}
	}
	b := binding(v, pl, semantics.Opts(o), me)
	second := s.Second(b, b)
	if !second.OK() {
		return outcome(second), second.Known, semantics.Rule{}
	}
	t := s.Traffic(to.addr, []semantics.Binding{b, b, b})
	switch {
	case t.Known.How == semantics.Unknown:
		return notKnown, t.Known, t.Rule
	case t.Way == semantics.Spread && len(t.To) == 3:
		return "spread", t.Known, t.Rule
	case t.Way == semantics.One && t.To[0] == 0:
		return "oldest", t.Known, t.Rule
	case t.Way == semantics.One && t.To[0] == 2:
		return "newest", t.Known, t.Rule
	}
	return t.Way.String(), t.Known, t.Rule
}

// traffics are the columns of the table of traffic.
func traffics() []struct {
	heading string
	v       variant
	pl, to  place
	o       semantics.Option
} {
	tcp, udp := variants()[1], variants()[2]
	return []struct {
		heading string
		v       variant
		pl, to  place
		o       semantics.Option
	}{
		{"PORT, one IPv4 address", tcp, specific(), specific(), semantics.Port},
		{"PORT, 0.0.0.0", tcp, wildcard(), specific(), semantics.Port},
		{"PORT, ::", tcp, only6(), specific6(), semantics.Port},
		{"LB, 0.0.0.0", tcp, wildcard(), specific(), semantics.LB},
		{"LB, :: dual", tcp, dual(), specific(), semantics.LB},
		{"ADDR, UDP", udp, wildcard(), specific(), semantics.Addr},
	}
}

func traffic(p *page) {
	p.par("Several sockets of one user have the same address. *Spread*: each gets a share, chosen by a hash of addresses and ports, blind to load. *Oldest* and *newest*: that one, in the order of the binds, gets everything. *No*: they cannot have the same address. –: there is no such option. A socket on a specific address comes before one on a wildcard, except beside an LB group.")
	heading := []string{""}
	for _, c := range traffics() {
		heading = append(heading, c.heading)
	}
	systemTable(p, heading, func(s semantics.System) []string {
		var cells []string
		for _, c := range traffics() {
			text, known, _ := gets(s, c.v, c.pl, c.to, c.o)
			if text != "–" {
				text = marked(text, known)
			}
			cells = append(cells, text)
		}
		return cells
	})
	p.folded("In words", func() {
		perSystem(p, func(s semantics.System) string {
			var list []string
			for _, c := range traffics() {
				_, known, rule := gets(s, c.v, c.pl, c.to, c.o)
				if rule.Text == "" {
					continue
				}
				if item := sourced(rule.Text, known); !slices.Contains(list, item) {
					list = append(list, item)
				}
			}
			return cmp.Or(strings.Join(list, " "), "No two unicast sockets have the same address.")
		})
	})
}

func closing(p *page) {
	p.par("What becomes of the connections that are complete and that nobody has accepted, when a listener closes while others share its address. *Reset*: the client's next read fails.")
	perText(p, func(s semantics.System) (string, semantics.Known) { return s.Closing().Text, s.Closing().Known })
}

// leftovers says whether a listener can be bound beside what an old one left.
func leftovers(s semantics.System, was, now semantics.Options) string {
	for _, o := range semantics.Opts((was | now).List()...).List() {
		if s.OptionName(o) == "" {
			return "–"
		}
	}
	left := func(state semantics.State) semantics.Answer {
		a := binding(variant{semantics.TCP, state}, specific(), was, me)
		return s.Second(a, binding(variants()[1], wildcard(), now, me))
	}
	open, waiting := left(semantics.Established), left(semantics.TimeWait)
	x, y := marked(outcome(open), open.Known), marked(outcome(waiting), waiting.Known)
	if x == y {
		return x
	}
	return "open: " + x + "; TIME_WAIT: " + y
}

func restart(p *page) {
	p.par("A listener is closed, and a connection that it accepted is left: open, or in TIME_WAIT. A new listener of the same user binds the wildcard address. Package net sets ADDR on every TCP listener except on Windows, so the second column is a Go server that restarts.")
	addr, port := semantics.Opts(semantics.Addr), semantics.Opts(semantics.Port)
	systemTable(p, []string{"", "no option", "ADDR on both", "only the new has ADDR", "PORT on both", "only the new has PORT"}, func(s semantics.System) []string {
		return []string{leftovers(s, 0, 0), leftovers(s, addr, addr), leftovers(s, 0, addr), leftovers(s, port, port), leftovers(s, 0, port)}
	})
	facts(p, semantics.Restart)
}

func portZero(p *page) {
	p.par("May a bind to port 0 be given a port that another socket with the same option has on the same address?")
	cells := func(s semantics.System, o semantics.Options) string {
		for _, option := range o.List() {
			if s.OptionName(option) == "" {
				return "–"
			}
		}
		ask := func(v variant) semantics.Answer {
			b := binding(v, specific(), o, me)
			return s.HandsOut(b, b)
		}
		tcp, udp := ask(variants()[0]), ask(variants()[2])
		x, y := marked(outcome(tcp), tcp.Known), marked(outcome(udp), udp.Known)
		if x == y {
			return x
		}
		return "TCP " + x + ", UDP " + y
	}
	systemTable(p, []string{"", "no option", "ADDR", "PORT", "LB"}, func(s semantics.System) []string {
		list := []string{cells(s, 0)}
		for _, o := range []semantics.Option{semantics.Addr, semantics.Port, semantics.LB} {
			list = append(list, cells(s, semantics.Opts(o)))
		}
		if s.OptionName(semantics.LB) == "" && !slices.ContainsFunc(list[:3], func(text string) bool { return text != notKnown && text != "–" }) {
			return []string{notKnown}
		}
		return list
	})
	facts(p, semantics.PortZero)
}

// optionCells are the cells of one address pair for several option pairs.
func optionCells(s semantics.System, pl [2]place, list []optionPair) []string {
	var cells []string
	for _, o := range list {
		cells = append(cells, optionCell(s, pl, o))
	}
	return cells
}

func optionCell(s semantics.System, pl [2]place, o optionPair) string {
	for _, option := range (o.a | o.b).List() {
		if s.OptionName(option) == "" {
			return "–"
		}
	}
	text, _ := cell(s, pl, o.a, o.b, me)
	return text
}

func dualStack(p *page) {
	p.par("0.0.0.0 and a :: that takes IPv4, too, by one user. The order matters on some systems.")
	addr := semantics.Opts(semantics.Addr)
	list := []optionPair{{0, 0}, {0, addr}}
	systemTable(p, []string{"", "0.0.0.0, then ::", "ADDR on the ::", "::, then 0.0.0.0", "ADDR on the 0.0.0.0"}, func(s semantics.System) []string {
		return slices.Concat(optionCells(s, [2]place{wildcard(), dual()}, list), optionCells(s, [2]place{dual(), wildcard()}, list))
	})
	facts(p, semantics.DualStack)
}

func multicast(p *page) {
	p.par("Two UDP sockets bind one group's address and port.")
	addr, port := semantics.Opts(semantics.Addr), semantics.Opts(semantics.Port)
	list := []optionPair{{0, 0}, {addr, addr}, {port, port}, {addr, port}, {port, addr}}
	heading := []string{""}
	for _, o := range list {
		heading = append(heading, o.String())
	}
	systemTable(p, heading, func(s semantics.System) []string {
		var cells []string
		for _, o := range list {
			if !slices.ContainsFunc((o.a | o.b).List(), func(o semantics.Option) bool { return s.OptionName(o) == "" }) {
				answer := bind(s, variants()[2], [2]place{group(), group()}, o.a, o.b, me)
				cells = append(cells, marked(outcome(answer), answer.Known))
			} else {
				cells = append(cells, "–")
			}
		}
		if len(s.Options()) == 0 || !slices.ContainsFunc(cells, func(text string) bool { return text != notKnown && text != "–" }) {
			return []string{notKnown}
		}
		return cells
	})
	if differs := otherUser(list); len(differs) > 0 {
		p.par("Another user's bind fares the same, except: %s.", strings.Join(differs, "; "))
	}
	facts(p, semantics.Multicast)
}

// otherUser lists where another user's bind to a group fares differently.
func otherUser(list []optionPair) []string {
	var pairs []string
	systems := map[string][]string{}
	for _, s := range semantics.Systems() {
		for _, o := range list {
			mine := bind(s, variants()[2], [2]place{group(), group()}, o.a, o.b, me)
			theirs := bind(s, variants()[2], [2]place{group(), group()}, o.a, o.b, other)
			if outcome(mine) == outcome(theirs) {
				continue
			}
			text := o.String() + ": " + marked(outcome(theirs), theirs.Known)
			if systems[text] == nil {
				pairs = append(pairs, text)
			}
			systems[text] = append(systems[text], s.Title())
		}
	}
	for i, text := range pairs {
		pairs[i] = strings.Join(systems[text], ", ") + ", " + text
	}
	return pairs
}

func connecting(p *page) {
	p.par("The error of a connect that would make the same pair of addresses and ports exist twice.")
	systemTable(p, []string{"", "error"}, func(s semantics.System) []string {
		a := s.SameTuple()
		return []string{marked(a.Err, a.Known)}
	})
}

func late(p *page) { facts(p, semantics.Late) }

// netSets is what package net sets on a TCP listener.
func netSets(s semantics.System) semantics.Options {
	if s.OptionName(semantics.Addr) == "" || strings.HasPrefix(s.Name(), "windows") {
		return 0
	}
	return semantics.Opts(semantics.Addr)
}

// taken says by which options, if any, a second listener takes traffic from a
// listener of package net: what is sent to the place called to.
func taken(s semantics.System, first, second, to place, user int) string {
	var by []semantics.Options
	var known []semantics.Known
	beside, unknown := false, false
	v := variants()[1]
	for _, o := range sets(s) {
		a, b := binding(v, first, netSets(s), me), binding(v, second, o, user)
		answer := s.Second(a, b)
		known = append(known, answer.Known)
		if !answer.OK() {
			unknown = unknown || answer.Known.How == semantics.Unknown
			continue
		}
		beside = true
		t := s.Traffic(to.addr, []semantics.Binding{a, b})
		known = append(known, t.Known)
		unknown = unknown || t.Known.How == semantics.Unknown
		if t.Known.How != semantics.Unknown && slices.Contains(t.To, 1) {
			by = append(by, o)
		}
	}
	known = slices.DeleteFunc(known, func(k semantics.Known) bool { return k.How == semantics.Unknown })
	if len(known) == 0 || unknown && len(by) == 0 {
		return notKnown
	}
	weakest := slices.MinFunc(known, func(a, b semantics.Known) int { return cmp.Compare(a.How, b.How) })
	switch {
	case len(by) > 0:
		var names []string
		for _, o := range by {
			if !slices.ContainsFunc(by, func(q semantics.Options) bool { return q != o && q&^o == 0 }) {
				names = append(names, shortSet(o))
			}
		}
		text := "with " + strings.Join(names, " or ")
		if slices.Contains(by, 0) {
			text = "with no option"
		}
		return marked(text, weakest)
	case beside:
		return marked("beside", weakest)
	}
	return marked("no", weakest)
}

func security(p *page) {
	p.par("A TCP listener of package net, with nothing else set, has a port. Which options let a second listener take its new connections? *Beside*: it can be bound, and gets none of them.")
	for _, u := range []struct {
		name string
		user int
	}{{"The second is the same user's", me}, {"The second is another user's, who is not root", other}} {
		p.par("%s:", u.name)
		systemTable(p, []string{"", "the same address", "a specific one from 0.0.0.0", "0.0.0.0 from a specific one"}, func(s semantics.System) []string {
			return []string{
				taken(s, specific(), specific(), specific(), u.user),
				taken(s, wildcard(), specific(), specific(), u.user),
				taken(s, specific(), wildcard(), specific(), u.user),
			}
		})
	}
	facts(p, semantics.Security)
}
