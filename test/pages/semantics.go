//go:build !android && !ios

package main

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

func options() string {
	since := func(s semantics.System, o semantics.Options) string {
		if !s.Options().Has(o) {
			return "no" + nbsp + mark(semantics.Source)
		}
		version, known := s.OptionSince(o)
		if version == "" {
			return marked("yes", known)
		}
		return marked("from "+version, known)
	}
	return perSystem([]string{"SO_REUSEADDR", "SO_REUSEPORT", "other options"}, func(s semantics.System) []string {
		var own []string
		for _, o := range (s.Options() &^ (semantics.Addr | semantics.Port)).List() {
			own = append(own, s.OptionName(o)+strings.TrimPrefix(" "+since(s, o), " yes"))
		}
		if name, version := deferPort(s); name != "" {
			own = append(own, name+" from "+version+nbsp+mark(semantics.Vendor))
		}
		return []string{since(s, semantics.Addr), since(s, semantics.Port), cmp.Or(strings.Join(own, ", "), "none")}
	})
}

// deferPort returns a system's name of the option of Config.DeferPort, and its first
// version. The rules do not have it, because it only defers the choice of a port.
func deferPort(s semantics.System) (name, since string) {
	switch s.Name() {
	case "linux", "android":
		return "IP_BIND_ADDRESS_NO_PORT", "4.2"
	case "windows":
		return "SO_REUSE_UNICASTPORT", "10 and Server 2016"
	}
	return "", ""
}

func promises() string {
	return perSystem([]string{"PortLB", "Exclusive"}, func(s semantics.System) []string {
		if s.Name() == "linux-3.8" { // the package makes no difference between the versions
			return []string{"nowhere", "as from 3.9 on"}
		}
		return []string{where(s, semantics.System.Balances), where(s, semantics.System.Exclusive)}
	})
}

// where lists the sockets for which holds returns true.
func where(s semantics.System, holds func(semantics.System, semantics.Binding) bool) string {
	const everyListener = "IPv4 address, 0.0.0.0, IPv6 address, :: IPv6 only, :: dual"
	ipv4, ipv6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	var list []string
	for _, of := range []struct {
		name string
		semantics.Binding
	}{
		{"IPv4 address", semantics.Binding{State: semantics.Listening, Addr: ipv4}},
		{"0.0.0.0", semantics.Binding{State: semantics.Listening, Addr: wildcard.Addr}},
		{"IPv6 address", semantics.Binding{State: semantics.Listening, Addr: ipv6}},
		{":: IPv6 only", semantics.Binding{State: semantics.Listening, Addr: only6.Addr, V6Only: true}},
		{":: dual", semantics.Binding{State: semantics.Listening, Addr: dual.Addr}},
		{"dialed", semantics.Binding{State: semantics.Established, Addr: ipv4, Dialed: true}},
	} {
		var protos string
		for _, of.Proto = range []semantics.Proto{semantics.TCP, semantics.UDP} {
			if holds(s, of.Binding) {
				protos += strings.ToUpper(of.Proto.String())
			}
		}
		if protos != "" {
			list = append(list, of.name+strings.TrimSuffix(" ("+protos+")", " (TCPUDP)"))
		}
	}
	text := cmp.Or(strings.Join(list, ", "), "nowhere")
	return cmp.Or(map[string]string{everyListener: "every listener", everyListener + ", dialed": "every socket"}[text], text)
}

// traffics are the columns of the table of traffic.
var traffics = []struct {
	heading  string
	kind, at semantics.Binding
	to       semantics.Binding
	o        semantics.Options
}{
	{"PORT, one IPv4 address", listening, specific, specific, semantics.Port},
	{"PORT, 0.0.0.0", listening, wildcard, specific, semantics.Port},
	{"PORT, ::", listening, only6, specific6, semantics.Port},
	{"LB, 0.0.0.0", listening, wildcard, specific, semantics.LB},
	{"LB, :: dual", listening, dual, specific, semantics.LB},
	{"PORT, UDP", udp, wildcard, specific, semantics.Port},
	{"ADDR, UDP", udp, wildcard, specific, semantics.Addr},
}

func traffic() string {
	var heading []string
	for _, c := range traffics {
		heading = append(heading, c.heading)
	}
	texts := map[string]string{} // by system
	text := perSystem(heading, func(s semantics.System) (cells []string) {
		for _, c := range traffics {
			b := socket(c.kind, c.at, c.o, me)
			second := s.Bind(b, b)
			if !second.OK() {
				cells = append(cells, cell(s, c.o, second))
				continue
			}
			t := s.Traffic(c.to.Addr, []semantics.Binding{b, b, b})
			way := string(t.Way)
			if t.Way == semantics.One {
				way = []string{"oldest", "", "newest"}[t.To[0]]
			}
			cells = append(cells, marked(way, t.Evidence))
			text := " " + t.Rule.Text
			if how := references([]semantics.Evidence{t.Evidence}); how != "" {
				text += " (" + how + ")"
			}
			if !strings.Contains(texts[s.Name()], text) {
				texts[s.Name()] += text
			}
		}
		return cells
	})
	var items []string
	for _, g := range grouped(func(s semantics.System) string { return texts[s.Name()] }) {
		if g.Text != "" {
			items = append(items, "**"+g.Titles()+"**:"+g.Text)
		}
	}
	return text + "\n\n" + folded("In words", list(items))
}

// byOptions is a table with a column for each pair of options that two sockets set.
func byOptions(list []optionPair, cell func(semantics.System, optionPair) string) string {
	var heading []string
	for _, o := range list {
		heading = append(heading, o.String())
	}
	return perSystem(heading, func(s semantics.System) (cells []string) {
		for _, o := range list {
			cells = append(cells, cell(s, o))
		}
		return cells
	})
}

// either is one cell for two answers, with their names if they differ.
func either(x, one, y, two string) string {
	if one == two {
		return one
	}
	return x + one + ", " + y + two
}

func restart() string {
	return byOptions([]optionPair{{}, {addr, addr}, {0, addr}, {port, port}, {0, port}}, func(s semantics.System, o optionPair) string {
		left := func(state semantics.State) string {
			first := socket(semantics.Binding{Proto: semantics.TCP, State: state}, specific, o.a, me)
			return cell(s, o.a|o.b, s.Bind(first, socket(listening, wildcard, o.b, me)))
		}
		return either("open: ", left(semantics.Established), "TIME_WAIT: ", left(semantics.TimeWait))
	})
}

func portZero() string {
	return byOptions([]optionPair{{}, {addr, addr}, {port, port}, {semantics.LB, semantics.LB}}, func(s semantics.System, o optionPair) string {
		assigns := func(kind semantics.Binding) string {
			b := socket(kind, specific, o.a, me)
			return cell(s, o.a, s.AssignsPort(b, b))
		}
		return either("TCP ", assigns(bound), "UDP ", assigns(udp))
	})
}

func families(first, second semantics.Binding) string {
	return byOptions([]optionPair{{}, {0, addr}}, func(s semantics.System, o optionPair) string {
		text, _ := bindAs(s, addressPair{first, second}, o, me)
		return text
	})
}

func multicast(user int) string {
	return byOptions([]optionPair{{}, {addr, addr}, {port, port}, {addr, port}, {port, addr}}, func(s semantics.System, o optionPair) string {
		return cell(s, o.a|o.b, s.Bind(socket(udp, groupAddr, o.a, me), socket(udp, groupAddr, o.b, user)))
	})
}

func security(user int) string {
	return perSystem([]string{"the same address", "a specific one from 0.0.0.0", "0.0.0.0 from a specific one"}, func(s semantics.System) []string {
		return []string{taken(s, specific, specific, user), taken(s, wildcard, specific, user), taken(s, specific, wildcard, user)}
	})
}

// taken returns the options, if any, by which a second listener gets traffic of the
// specific address from a listener of package net.
func taken(s semantics.System, first, second semantics.Binding, user int) string {
	var by []string
	known := []semantics.Evidence{{Kind: semantics.Measured}}
	alongside := false
	was := s.Options() & addr // set by package net
	if strings.HasPrefix(s.Name(), "windows") {
		was = 0
	}
	for _, o := range sets(s) {
		a, b := socket(listening, first, was, me), socket(listening, second, o, user)
		answer := s.Bind(a, b)
		known = append(known, answer.Evidence)
		if !answer.OK() {
			continue
		}
		alongside = true
		t := s.Traffic(specific.Addr, []semantics.Binding{a, b})
		known = append(known, t.Evidence)
		larger := slices.ContainsFunc(by, func(name string) bool { return strings.Contains(names(o), name) || name == names(0) })
		if slices.Contains(t.To, 1) && !larger {
			by = append(by, names(o))
		}
	}
	switch {
	case len(by) > 0:
		known = slices.DeleteFunc(known, func(k semantics.Evidence) bool { return k.Kind == semantics.Unknown })
		return marked("with "+strings.Join(by, " or "), weakest(known))
	case alongside:
		return marked("alongside", weakest(known))
	}
	return marked("no", weakest(known))
}

func weakest(known []semantics.Evidence) semantics.Evidence {
	return slices.MinFunc(known, func(a, b semantics.Evidence) int { return cmp.Compare(a.Kind, b.Kind) })
}
