package semantics

import (
	"fmt"
	"strings"
)

// A System is a kernel, or a range of versions of one, with one set of rules.
type System struct {
	name, title string
	options     map[Options]optionData
	bind        func(first, second Binding) Answer
	traffic     func(to destination, sharing []Binding) Traffic // nil: unverified
	assignsPort func(first, second Binding) Answer              // nil: unverified
	facts       []Fact
	detour      func(Binding) bool // whether another user gets traffic by several binds; nil: never
}

// optionData is a system's name of an option, its first version, and the evidence.
type optionData struct {
	name, since string
	known       Evidence
}

// Systems returns every system, always in the same order.
func Systems() []System {
	return []System{
		linux(), android(), linux38(),
		freebsd(), freebsd14(), openbsd(), netbsd(), dragonfly(), darwin("darwin", "macOS"), darwin("ios", "iOS"),
		windows(), illumos(), solaris114(), solaris(), aix(), fakeNetwork("js"), fakeNetwork("wasip1"), plan9(),
	}
}

// Find returns the system with a name, such as "linux" or "freebsd-14". A GOOS is the
// name of the system's present versions. "solaris" is Solaris before 11.4, because
// a GOOS has no version, see On.
func Find(name string) (System, error) {
	var names []string
	for _, s := range Systems() {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	return System{}, fmt.Errorf("no rules for a system %q; there are: %s", name, strings.Join(names, ", "))
}

// On returns the running system, from its GOOS and the release and version of uname:
// On("linux", "6.18.4", ""), On("freebsd", "14.0-STABLE", ""),
// On("solaris", "5.11", "11.4.0.15.0"). A release that does not parse counts as a present
// one.
func On(goos, release, version string) (System, error) {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	switch {
	case goos == "linux" && n > 0 && (major < 3 || major == 3 && minor < 9):
		return Find("linux-3.8")
	case goos == "freebsd" && n > 0 && major <= 14:
		return Find("freebsd-14")
	case goos == "solaris":
		if n, _ := fmt.Sscanf(version, "11.%d", &minor); n == 1 && minor >= 4 {
			return Find(Solaris114)
		}
	}
	return Find(goos)
}

// Solaris114 is the name of Oracle Solaris 11.4 and later, where SO_REUSEPORT
// balances.
const Solaris114 = "solaris-11.4"

// Name returns the name for Find: a GOOS, with a version where there are several sets of
// rules.
func (s System) Name() string { return s.name }

// Title returns the name for display, with the versions.
func (s System) Title() string { return s.title }

// String returns the title.
func (s System) String() string { return s.title }

// inferred returns a system whose rules and facts are those of s, but for port 0.
func (s System) inferred(name, title string, from Evidence) System {
	bind, traffic := s.bind, s.traffic
	s.name, s.title, s.assignsPort = name, title, nil
	s.bind = func(a, b Binding) Answer { return bind(a, b).knownBy(from) }
	s.traffic = func(to destination, sharing []Binding) Traffic {
		t := traffic(to, sharing)
		if t.Evidence.Kind != Unknown {
			t.Evidence = from
		}
		return t
	}
	for o, d := range s.options {
		d.known = from
		s.options[o] = d
	}
	for i := range s.facts {
		s.facts[i].Evidence = from
	}
	return s
}

// Options returns the options of the system.
func (s System) Options() (set Options) {
	for o := range s.options {
		set |= o
	}
	return set
}

// OptionName returns the system's name of an option, such as "SO_REUSEPORT_LB", or ""
// if the system lacks it.
func (s System) OptionName(o Options) string { return s.options[o].name }

// OptionSince returns the first version that has an option, with the evidence. It
// returns "" if all versions have it, or if the first one is unverified.
func (s System) OptionSince(o Options) (string, Evidence) {
	return s.options[o].since, s.options[o].known
}
