//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchmath"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/term"
)

// results is all that was measured, and on what.
type results struct {
	machine      machine
	descriptions []description
	calls        []series
	handOvers    []handOver
}

type machine struct {
	cpu    string
	kernel string
	load   float64 // average of the last minute, when it began
	date   time.Time
}

func thisMachine() (m machine, err error) {
	m = machine{cpu: "unknown processor", date: time.Now()}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.cpu = strings.TrimSpace(value)
			break
		}
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, err
	}
	if _, err := fmt.Sscan(string(load), &m.load); err != nil {
		return m, fmt.Errorf("/proc/loadavg: %w", err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, os.NewSyscallError("uname", err)
	}
	m.kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return m, nil
}

// A target is what this library wants to be, and what it is.
type target struct {
	text, verdict, figure string
}

const (
	met    = "met"
	missed = "**missed**"
	// The median is on one side of the limit, and its bounds are on both.
	perhaps = ", not certain"
)

func verdict(is bool) string {
	if is {
		return met
	}
	return missed
}

// atMost judges a ratio.
func atMost(s benchmath.Summary, limit float64) string {
	v := verdict(s.Center <= limit)
	if s.Lo <= limit && limit < s.Hi {
		v += perhaps
	}
	return v
}

// slowest is the most that this library may take, with the hand-written Control at 1.
const slowest = 1.03

func (r *results) targets() (list []target) {
	for _, s := range r.calls {
		ratio := s.ratio(ours, hand)
		list = append(list, target{
			fmt.Sprintf("%s: at most %.2f times the hand-written", s.name, slowest), atMost(ratio, slowest), spread(ratio),
		})
	}
	for _, s := range r.calls[:2] {
		closest, name := benchmath.Summary{Center: math.Inf(-1)}, ""
		for _, w := range s.ways {
			if w == plain || w == hand || w == ours {
				continue
			}
			if ratio := s.ratio(ours, w); ratio.Center > closest.Center {
				closest, name = ratio, w
			}
		}
		list = append(list, target{s.name + ": faster than every other library", atMost(closest, 1), spread(closest) + " times " + name})
	}
	s := r.calls[0]
	mine, others := s.allocs(ours), []string{}
	fewest := true
	for _, w := range s.ways {
		if w == plain || w == ours {
			continue
		}
		others = append(others, fmt.Sprintf("%s %.0f", w, s.allocs(w)))
		fewest = fewest && mine <= s.allocs(w)
	}
	list = append(list, target{"Listen: fewest allocations of all that share", verdict(fewest), fmt.Sprintf("%.0f; %s", mine, strings.Join(others, ", "))})
	h := r.handOvers[0]
	return append(list, target{"hand-over: nothing lost", verdict(h.lost == 0), fmt.Sprintf("%d of %s", h.lost, term.Number(h.sent))})
}

// spread prints a median and its bounds, with the digits that they are good for.
func spread(s benchmath.Summary) string {
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		return fmt.Sprintf("%.2f (too few turns for bounds)", s.Center)
	}
	digits := 2
	if s.Hi-s.Lo < 0.1 {
		digits = 3
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.Center, digits, s.Lo, digits, s.Hi)
}

// beside prints how a way compares with the hand-written one.
func (s series) beside(way string) string {
	if way == hand {
		return "1"
	}
	return spread(s.ratio(way, hand))
}

// page is the part of docs/benchmarks.md that this program writes.
func (r *results) page() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	row := func(cells ...string) { p("| %s |", strings.Join(cells, " | ")) }
	head := func(cells ...string) {
		row(cells...)
		p("|%s", strings.Repeat("---|", len(cells)))
	}

	m := r.machine
	p("%s, %d processors, Linux %s, %s, %s; load average %.1f.",
		m.cpu, runtime.NumCPU(), m.kernel, runtime.Version(), m.date.Format("2 January 2006"), m.load)
	if m.load >= 1 {
		p("**The machine was busy with other work**: times by the clock, and of")
		p("the hand-over, are rough.")
	}
	p("`hand` is a `net.ListenConfig` or `net.Dialer` with a Control function written by hand")
	p("that sets SO_REUSEPORT and nothing else; `net` is package net, which does not share; `reuse`")
	p("has `Port: On`. All on tcp4 or udp4 and 127.0.0.1, without Multipath")
	p("TCP unless it is named. Figures are ratios: 1.050 (1.042–1.057) is a median of 1.05 times")
	p("`hand`, which lies from 1.042 to 1.057 with a confidence of 95%%.\n")
	version := versions()
	var list []string
	for _, w := range ways() {
		if w.module != "" {
			list = append(list, fmt.Sprintf("`%s` %s %s", w.name, w.module, version[w.module]))
		}
	}
	const flip = "github.com/cloudflare/tableflip"
	p("The others: %s; `%s` %s %s.\n", strings.Join(list, "; "), flipWay, flip, version[flip])
	p("![time beside a Control function written by hand](benchmarks.svg)\n")

	p("### Targets\n")
	head("", "", "measured")
	for _, t := range r.targets() {
		row(t.text, t.verdict, t.figure)
	}

	p("\n### One socket, and Close\n")
	p("Time of the processors, to that of `hand`, and allocations a call; the µs are by the clock,")
	p("others' work included. Dial is from the local address 127.0.0.1:0.\n")
	for _, s := range r.calls {
		head(s.name, "time", "allocations", "µs")
		for i, w := range s.ways {
			row("`"+w+"`", s.beside(w), fmt.Sprintf("%.0f", s.allocs(w)), fmt.Sprintf("%.1f", summary(s.clock[i]).Center/1000))
		}
		p("")
	}

	p("### Hand-over beside tableflip\n")
	p("Servers restart under %s connections a second, each with one request. The", term.Number(loaders*pace))
	p("new process is started by the benchmark, or by tableflip's old process when it gets a signal.")
	p("From then on count the times until the new process first answers, and until the old one has")
	p("exited (medians). p99 is of a connection, from connect to answer. All in milliseconds.\n")
	head("", "restarts", "connections", "lost", "first answer", "old exited", "p99 in quiet", "p99 in the hand-over", "ratio")
	for _, h := range r.handOvers {
		quiet, handing := quantile(h.quiet, 0.99), quantile(h.handing, 0.99)
		row("`"+h.kind+"`", term.Number(h.restarts), term.Number(h.sent), term.Number(h.lost),
			fmt.Sprintf("%.1f", quantile(h.first, 0.5)), fmt.Sprintf("%.1f", quantile(h.exit, 0.5)),
			fmt.Sprintf("%.2f", quiet), fmt.Sprintf("%.2f", handing), fmt.Sprintf("%.2f", handing/quiet))
	}
	p("\n### What the others set\n")
	p("Read from a listener of each, on tcp4, where a name is not that of an option. These")
	p("differences are part of the times above.\n")
	head(append([]string{""}, descriptionHeads()...)...)
	for _, d := range r.descriptions {
		row(append([]string{"`" + d.way + "`"}, d.options...)...)
	}
	return b.String()
}

// What is between these lines of docs/benchmarks.md is this program's. The rest is not.
const (
	pageBegin = "<!-- go run . in internal/bench writes from here -->\n"
	pageEnd   = "<!-- to here -->\n"
)

// write puts text in its place in a folder's page, and the chart beside it.
func write(folder, text string, chart []byte) error {
	path := filepath.Join(folder, "benchmarks.md")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, []byte(pageBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(pageEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines that say which part of it is written", path)
	}
	page := slices.Concat(before, []byte(pageBegin), []byte(text), []byte(pageEnd), after)
	if err := os.WriteFile(path, page, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "benchmarks.svg"), chart, 0o644)
}
