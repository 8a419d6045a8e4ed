//go:build !android && !ios

package main

import (
	"fmt"
	"slices"
	"strings"

	"example.com/reuse/internal/semantics"
)

// A verdict on a claim, for one system.
type verdict string

const (
	holds   verdict = "true"
	limits  verdict = "true with limits"
	wrong   verdict = "wrong"
	unknown verdict = notKnown
)

// A finding is a verdict, why, and how that is known.
type finding struct {
	verdict verdict
	why     string
	from    *origins
}

func typed(v verdict, why string, known ...semantics.Known) finding {
	from := &origins{}
	for _, k := range known {
		from.add(k)
	}
	return finding{v, why, from}
}

// A check compares what a claim says of one case with what the rules say.
type check struct {
	kind, what string // "UDP", "0.0.0.0 twice, ADDR on both"
	want, got  string // outcomes
	known      semantics.Known
	edge       bool // the claim says nothing of it, or not clearly: it may only limit
}

func (c check) differs() bool { return c.got != notKnown && c.want != notKnown && c.got != c.want }

// weigh makes a verdict of checks: wrong if the rules contradict the claim, true
// with limits if they do so at its edges only, to which all that is unsure belongs.
func weigh(checks []check, remark string) finding {
	from := &origins{}
	cases, missing := 0, 0
	var against, edges []check
	for _, c := range checks {
		from.add(c.known)
		if c.known.How == semantics.Unsure {
			c.edge = true
		}
		switch {
		case !c.edge && c.got == notKnown:
			missing++
		case c.differs() && c.edge:
			edges = append(edges, c)
		case c.differs():
			against = append(against, c)
		}
		if !c.edge {
			cases++
		}
	}
	f := finding{holds, remark, from}
	switch {
	case len(against) > 0:
		f.verdict = wrong
		f.why = join(fmt.Sprintf("%d of %d cases differ: %s.", len(against), cases, differences(against)), remark)
	case missing > 0:
		f.verdict = unknown
		f.why = fmt.Sprintf("%d of %d cases are not known.", missing, cases)
		if missing == cases {
			f.why = "No case of it is known."
		}
	case cases == 0:
		f.verdict, f.why = unknown, "What is said of it is unsure."
	case len(edges) > 0:
		f.verdict, f.why = limits, join("Except: "+differences(edges)+".", remark)
	case remark == "":
		f.why = fmt.Sprintf("The rules agree in all %d cases.", cases)
	}
	return f
}

func join(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), " ")
}

// differences says in which cases the rules differ, with three examples. What is
// so of every kind of socket is said once.
func differences(list []check) string {
	var examples []string
	kinds := map[string][]string{}
	for _, c := range list {
		text := c.what + ": " + c.got
		if kinds[text] == nil {
			examples = append(examples, text)
		}
		if !slices.Contains(kinds[text], c.kind) {
			kinds[text] = append(kinds[text], c.kind)
		}
	}
	rest := ""
	if n := len(examples) - 3; n > 0 {
		examples, rest = examples[:3], fmt.Sprintf("; and %d more", n)
	}
	for i, text := range examples {
		if k := kinds[text]; len(k) < len(variants()) && k[0] != "" {
			examples[i] = strings.Join(k, " and ") + ", " + text
		}
	}
	return strings.Join(examples, "; ") + rest
}

// asked makes a check of a pair of binds.
func asked(s semantics.System, v variant, pl [2]place, o optionPair, user int, want bool) check {
	answer := bind(s, v, pl, o.a, o.b, user)
	c := check{kind: kind(v), want: "no", got: outcome(answer), known: answer.Known}
	if want {
		c.want = "yes"
	}
	if c.got != "yes" && c.got != notKnown {
		c.got = "no" // whichever error
	}
	c.what = pairName(pl) + ", " + o.String()
	if user != me {
		c.what = pairName(pl) + ", another user"
	}
	return c
}

func kind(v variant) string {
	switch {
	case v.proto == semantics.UDP:
		return "UDP"
	case v.state == semantics.Listening:
		return "TCP listening"
	}
	return "TCP bound"
}

// among are the option pairs of none and some options.
func among(list ...semantics.Options) []optionPair {
	var pairs []optionPair
	for _, a := range append([]semantics.Options{0}, list...) {
		for _, b := range append([]semantics.Options{0}, list...) {
			pairs = append(pairs, optionPair{a, b})
		}
	}
	return pairs
}

func addr() semantics.Options { return semantics.Opts(semantics.Addr) }
func port() semantics.Options { return semantics.Opts(semantics.Port) }
func lb() semantics.Options   { return semantics.Opts(semantics.LB) }
func excl() semantics.Options { return semantics.Opts(semantics.Excl) }

// mixed says that one of a pair is a wildcard and the other is not.
func mixed(pl [2]place) bool { return pl[0].addr.IsUnspecified() != pl[1].addr.IsUnspecified() }

// apart says that a pair of IPv4 places does not overlap.
func apart(pl [2]place) bool { return pl[0] == specific() && pl[1] == specific2() }
