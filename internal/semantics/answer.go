package semantics

// A How says how something is known, from the weakest to the strongest.
type How uint8

// How something is known.
const (
	Unknown  How = iota // nobody we know of has measured, read or documented it
	Unsure              // sources contradict each other, or it is second-hand
	Inferred            // from a relative: Android from Linux, Solaris from illumos
	Vendor              // the vendor's documentation
	Source              // read in the kernel's source
	Measured            // on a running kernel
)

// String returns the word for a person, as in "measured" or "source".
func (h How) String() string {
	switch h {
	case Unsure:
		return "unsure"
	case Inferred:
		return "inferred"
	case Vendor:
		return "vendor's documentation"
	case Source:
		return "source"
	case Measured:
		return "measured"
	}
	return "not known"
}

// Known is how something is known, and where: the versions that it was measured
// on, the file and function, the title of the vendor's page.
type Known struct {
	How   How
	Where string
}

// String returns both, as in "source: tcp_bindi".
func (k Known) String() string {
	if k.Where == "" {
		return k.How.String()
	}
	return k.How.String() + ": " + k.Where
}

// A Rule is one clause of a kernel's rules. Text is one sentence, for a person.
type Rule struct{ Name, Text string }

// An Answer says what becomes of a second bind to the port of the first. Where
// Known.How is Unknown the other fields except Rule say nothing.
type Answer struct {
	Err   string // the errno's name, such as "EADDRINUSE" or "WSAEACCES"; "" if it succeeds
	Step  string // where it fails: "setsockopt", "bind", "listen" or "connect"
	First bool   // it is the first binding that fails, and there is no second
	Rule  Rule   // which decided
	Known Known  // how that is known
}

// OK says that it is known to succeed.
func (a Answer) OK() bool { return a.Err == "" && a.Known.How != Unknown }

// String returns "ok", "bind:EADDRINUSE", "first:bind:EAFNOSUPPORT" or "not known".
func (a Answer) String() string {
	switch {
	case a.Known.How == Unknown:
		return "not known"
	case a.Err == "":
		return "ok"
	case a.First:
		return "first:" + a.Step + ":" + a.Err
	}
	return a.Step + ":" + a.Err
}

// Second says what becomes of a second binding while the first is there. It
// looks at nothing but its arguments.
func (s System) Second(first, second Binding) Answer {
	if !first.valid() || !second.valid() || second.connected() {
		return Answer{Rule: Rule{"invalid", "A binding needs a protocol, an address and a state; the second is bound or listening."}}
	}
	if first.Proto != second.Proto {
		return Answer{Rule: protocols(), Known: Known{Source, "a table for each protocol in every kernel"}}
	}
	for i, b := range []Binding{first, second} {
		if !s.has(b.Options) {
			return Answer{Err: "ENOPROTOOPT", Step: "setsockopt", First: i == 0,
				Rule: Rule{"no option", "The kernel does not have this option."}, Known: Known{Source, "the system's socket.h"}}
		}
	}
	return s.second(first.unmapped(), second.unmapped())
}

// Listen says what becomes of listen on a second socket that has been bound
// while the first was in an earlier state, and the first is as given now.
func (s System) Listen(first, second Binding) Answer {
	if !first.valid() || !second.valid() || first.Proto != TCP || second.Proto != TCP {
		return Answer{Rule: Rule{"invalid", "Both bindings must be TCP's."}}
	}
	return s.listen(first.unmapped(), second.unmapped())
}

// HandsOut says whether a bind of the second to port 0 may be given the port that
// the first has: "ok" if it may.
func (s System) HandsOut(first, second Binding) Answer {
	if s.handsOut == nil || !first.valid() || !second.valid() {
		return Answer{Rule: Rule{"not known", "Not known."}}
	}
	if first.Proto != second.Proto {
		return Answer{Rule: protocols(), Known: Known{Source, "a table for each protocol in every kernel"}}
	}
	return s.handsOut(first.unmapped(), second.unmapped())
}

// Connect says what becomes of a connect by a socket with such a binding to a
// peer that nothing here is connected to.
func (s System) Connect(b Binding) Answer { return s.connect(b.unmapped()) }

// SameTuple says what becomes of a connect that would make the same pair of
// local and remote address and port exist twice.
func (s System) SameTuple() Answer { return s.sameTuple }

// Detour says that another user who binds several times can take some of the
// traffic of a socket that shares by no option.
func (s System) Detour(b Binding) bool { return s.detour != nil && s.detour(b.unmapped()) }

// unmapped writes ::ffff:a.b.c.d as IPv4, which the kernels take it for.
func (b Binding) unmapped() Binding {
	b.mapped = b.Addr.Is4In6()
	b.Addr = b.Addr.Unmap().WithZone("")
	return b
}

// apart is the answer to most pairs: they are none at all.
func apart(known Known) Answer {
	return answer("", "apart", "No traffic could reach both bindings, so they do not meet.", known)
}

func protocols() Rule {
	return Rule{"protocols", "TCP and UDP have port spaces of their own."}
}

// given is System.handsOut: the port may be handed out, or not.
func given(may bool, known Known) Answer {
	rule := Rule{"port 0", "A port that a bind with its number would be admitted to may be handed out for port 0."}
	if may {
		return Answer{Rule: rule, Known: known}
	}
	return Answer{Err: "EADDRINUSE", Step: "bind", Rule: Rule{"port 0", "A port that such a socket has is not handed out for port 0."}, Known: known}
}

// answer is what bind answers: an errno, or "" for success.
func answer(err, name, text string, known Known) Answer {
	a := Answer{Err: err, Rule: Rule{name, text}, Known: known}
	if err != "" {
		a.Step = "bind"
	}
	return a
}

// notKnown is the answer to what nobody has measured, read or documented.
func notKnown(name, text string) Answer { return Answer{Rule: Rule{name, text}} }

// at returns an answer whose failure is at another step.
func at(step string, a Answer) Answer {
	if a.Err != "" {
		a.Step = step
	}
	return a
}

// as returns an answer that is known in another way.
func as(known Known, a Answer) Answer {
	a.Known = known
	return a
}

// listens is System.listen where listen tests nothing that bind has not.
func listens(known Known) func(a, b Binding) Answer {
	return func(Binding, Binding) Answer {
		return Answer{Rule: Rule{"listen", "listen does not look at other sockets."}, Known: known}
	}
}

// connects is System.connect where no option is in the way.
func connects(Binding) Answer {
	return Answer{Rule: Rule{"connect", "No option forbids a socket to connect."}, Known: Known{Source, "net.Dial with each option"}}
}

// tupleTaken is System.sameTuple.
func tupleTaken(err string, known Known) Answer {
	return Answer{Err: err, Step: "connect", Rule: Rule{"tuple", "The kernel would have two sockets with the same two addresses and ports."}, Known: known}
}
