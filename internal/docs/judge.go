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
	what      string
	want, got string // outcomes
	known     semantics.Known
	edge      bool // the claim says nothing of it, or not clearly: it may only limit
}

func (c check) differs() bool { return c.got != notKnown && c.want != notKnown && c.got != c.want }

// weigh makes a verdict of checks: wrong if the rules contradict the claim, true
// with limits if they do so at its edges only.
func weigh(checks []check, remark string) finding {
	from := &origins{}
	cases, missing := 0, 0
	var against, edges []check
	for _, c := range checks {
		from.add(c.known)
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
		f.verdict, f.why = wrong, join(differences(against, cases), remark)
	case missing > 0:
		f.verdict = unknown
		f.why = fmt.Sprintf("%d of %d cases are not known.", missing, cases)
	case len(edges) > 0:
		f.verdict, f.why = limits, join(differences(edges, 0), remark)
	case remark == "":
		f.why = fmt.Sprintf("The rules agree in all %d cases.", cases)
	}
	return f
}

func join(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), " ")
}

// differences says in which cases the rules differ, with three examples.
func differences(list []check, of int) string {
	var examples []string
	for _, c := range list {
		if text := c.what + ": " + c.got; !slices.Contains(examples, text) {
			examples = append(examples, text)
		}
	}
	rest := ""
	if n := len(examples) - 3; n > 0 {
		examples, rest = examples[:3], fmt.Sprintf("; and %d more", n)
	}
	text := strings.Join(examples, "; ") + rest + "."
	if of > 0 {
		return fmt.Sprintf("It differs in %d of %d cases. %s", len(list), of, text)
	}
	return "But " + text
}

// asked makes a check of a pair of binds.
func asked(s semantics.System, v variant, pl [2]place, o optionPair, user int, want bool) check {
	answer := bind(s, v, pl, o.a, o.b, user)
	c := check{want: "no", got: outcome(answer), known: answer.Known}
	if want {
		c.want = "yes"
	}
	if c.got != "yes" && c.got != notKnown {
		c.got = "no" // whichever error
	}
	c.what = kind(v) + pairName(pl) + ", " + o.String()
	if user != me {
		c.what += ", another user"
	}
	return c
}

func kind(v variant) string {
	switch {
	case v.proto == semantics.UDP:
		return "UDP, "
	case v.state == semantics.Listening:
		return "listening, "
	}
	return "TCP, "
}

// both are the option pairs of none and some options.
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
