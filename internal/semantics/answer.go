package semantics

// An EvidenceKind is how a statement is known, from the weakest to the strongest.
type EvidenceKind uint8

// The kinds of evidence.
const (
	Unknown  EvidenceKind = iota // no measurement, source or document was found
	Unsure                       // sources contradict each other, or it is second-hand
	Inferred                     // from a relative: Android from Linux, Solaris from illumos
	Vendor                       // the vendor's documentation
	Source                       // read in the kernel's source
	Measured                     // on a running kernel
)

// String returns the kind in words, such as "measured" or "source".
func (k EvidenceKind) String() string {
	return map[EvidenceKind]string{
		Unknown: "unverified", Unsure: "unsure", Inferred: "inferred", Vendor: "vendor's documentation", Source: "source", Measured: "measured",
	}[k]
}

// Evidence is how a statement is known, and where: the versions of the measurement,
// the file and function, or the title of the vendor's page.
type Evidence struct {
	Kind      EvidenceKind
	Reference string
}

// A Rule is one clause of a kernel's rules. Text is for display.
type Rule struct{ Name, Text string }

// An Answer is the result of a second bind to the port of a first one. If
// Evidence.Kind is Unknown, the other fields except Rule have no meaning.
type Answer struct {
	Err      string   // the errno's name, such as "EADDRINUSE" or "WSAEACCES"; "" if it succeeds
	Step     string   // where it fails: "setsockopt" or "bind"
	First    bool     // the first bind fails, and there is no second one
	Rule     Rule     // the rule that decides
	Evidence Evidence // how the rule is known
}

// OK reports whether the second bind succeeds.
func (a Answer) OK() bool { return a.Err == "" && a.Evidence.Kind != Unknown }

// String returns "ok", "bind:EADDRINUSE", "first:bind:EAFNOSUPPORT" or "unverified".
func (a Answer) String() string {
	switch {
	case a.Evidence.Kind == Unknown:
		return "unverified"
	case a.Err == "":
		return "ok"
	case a.First:
		return "first:" + a.Step + ":" + a.Err
	}
	return a.Step + ":" + a.Err
}

// Bind returns the result of a second bind while the first binding exists. The result
// depends on the arguments alone.
func (s System) Bind(first, second Binding) Answer {
	if !first.valid() || !second.valid() || second.connected() {
		return notKnown("invalid", "A binding needs a protocol, an address and a state. The second one is bound or listening.")
	}
	if first.Proto != second.Proto {
		return twoProtocols()
	}
	for i, b := range []Binding{first, second} {
		if b.Options&^s.Options() != 0 {
			return Answer{Err: "ENOPROTOOPT", Step: "setsockopt", First: i == 0,
				Rule: Rule{"no option", "The kernel does not have this option."}, Evidence: Evidence{Source, "the system's socket.h"}}
		}
	}
	return s.bind(first.unmapped(), second.unmapped())
}

// AssignsPort reports whether a second bind, to port 0, can get the port of the first
// binding: "ok" if it can.
func (s System) AssignsPort(first, second Binding) Answer {
	if s.assignsPort == nil || !first.valid() || !second.valid() {
		return notKnown("unverified", "Unverified.")
	}
	if first.Proto != second.Proto {
		return twoProtocols()
	}
	return s.assignsPort(first.unmapped(), second.unmapped())
}

// answer is a result of bind: an errno, or "" for success.
func answer(err, name, text string, known Evidence) Answer {
	a := Answer{Err: err, Rule: Rule{name, text}, Evidence: known}
	if err != "" {
		a.Step = "bind"
	}
	return a
}

// notKnown is the answer where nothing was measured, read or documented.
func notKnown(name, text string) Answer { return Answer{Rule: Rule{name, text}} }

// knownBy returns the answer with other evidence.
func (a Answer) knownBy(e Evidence) Answer {
	a.Evidence = e
	return a
}

func twoProtocols() Answer {
	return answer("", "protocols", "TCP and UDP have separate port spaces.", Evidence{Source, "a table for each protocol in every kernel"})
}

func noOverlap(known Evidence) Answer {
	return answer("", "no overlap", "The bindings do not conflict, because no traffic could reach both.", known)
}

// portZero is the answer of System.assignsPort.
func portZero(can bool, known Evidence) Answer {
	return answer(map[bool]string{false: "EADDRINUSE"}[can], "port 0", "Whether port 0 can return a port that such a socket has.", known)
}
