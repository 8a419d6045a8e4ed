package semantics

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A System is a kernel, or a range of versions of one, with one set of rules.
type System struct {
	name, title string
	options     []optionData
	second      func(first, second Binding) Answer
	listen      func(first, second Binding) Answer
	traffic     func(to destination, sharing []Binding) Traffic
	connect     func(Binding) Answer
	handsOut    func(first, second Binding) Answer // nil: not known
	sameTuple   Answer
	closing     Closing
	facts       []Fact
	detour      func(Binding) bool // nil: nowhere
}

// optionData is what a system calls an option, from which version, and how that
// is known.
type optionData struct {
	option Option
	name   string
	since  string
	known  Known
}

// Systems returns every system that has rules here, always in the same order.
func Systems() []System {
	return []System{
		linux(), android(), linux38(),
		freebsd(), freebsd14(), openbsd(), netbsd(), dragonfly(), darwin(), ios(),
		windows(), windows2000(),
		illumos(), solaris114(), solaris(),
		aix(), js(), wasip1(), plan9(),
	}
}

// Find returns the system with a name, such as "linux" or "freebsd-14". A GOOS
// is the name of the system's present versions ("solaris": before 11.4, as
// package runtime cannot tell them apart; see On).
func Find(name string) (System, error) {
	all := Systems()
	i := slices.IndexFunc(all, func(s System) bool { return s.name == name })
	if i < 0 {
		names := make([]string, len(all))
		for i, s := range all {
			names[i] = s.name
		}
		return System{}, fmt.Errorf("no rules for a system %q; there are: %s", name, strings.Join(names, ", "))
	}
	return all[i], nil
}

// ErrVersion is returned by On for versions that no rules are known for.
var ErrVersion = errors.New("the rules of this version are not known")

// On returns the running system, from its GOOS and the release and version that
// uname gives: On("linux", "6.18.4", ""), On("freebsd", "14.0-STABLE", ""),
// On("solaris", "5.11", "11.4.0.15.0"). For Windows the release is
// "major.minor". A release that cannot be read counts as a present one.
func On(goos, release, version string) (System, error) {
	major, minor, known := parseRelease(release)
	switch goos {
	case "linux":
		if known && (major < 3 || major == 3 && minor < 9) {
			return Find("linux-3.8")
		}
	case "freebsd":
		switch {
		case !known || major > 14:
		case major >= 12:
			return Find("freebsd-14")
		default:
			return System{}, fmt.Errorf("FreeBSD %s: %w", release, ErrVersion)
		}
	case "windows":
		if known && (major < 5 || major == 5 && minor < 2) {
			return Find("windows-2000")
		}
	case "solaris":
		return Find(solarisName(version))
	}
	return Find(goos)
}

// Solaris114 is the name of Oracle Solaris 11.4 and later, where SO_REUSEPORT
// balances.
const Solaris114 = "solaris-11.4"

// solarisName returns the name for a Solaris whose uname has a version such as
// "11.4.0.15.0".
func solarisName(version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if n, err := strconv.Atoi(minor); major == "11" && err == nil && n >= 4 {
		return Solaris114
	}
	return "solaris"
}

// parseRelease reads the first two numbers of "6.18.44-x", "14.0-STABLE", "10.0".
func parseRelease(release string) (major, minor int, ok bool) {
	number := func(s string) (int, string, bool) {
		end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(s)
		}
		n, err := strconv.Atoi(s[:end])
		return n, s[end:], err == nil
	}
	major, rest, ok := number(release)
	if !ok || !strings.HasPrefix(rest, ".") {
		return major, 0, ok
	}
	minor, _, ok = number(rest[1:])
	return major, minor, ok
}

// Name returns the name that Find takes: a GOOS, with a version where there are
// several sets of rules.
func (s System) Name() string { return s.name }

// Title returns the name for a person, with the versions.
func (s System) Title() string { return s.title }

// String returns the title.
func (s System) String() string { return s.title }

// Options returns the options that exist there.
func (s System) Options() []Option {
	list := make([]Option, len(s.options))
	for i, o := range s.options {
		list[i] = o.option
	}
	return list
}

// OptionName returns what the system calls an option, such as "SO_REUSEPORT_LB",
// or "" where it has none.
func (s System) OptionName(o Option) string { return s.optionData(o).name }

// OptionSince returns the first version that has an option, "" if it has always
// been there or if that is not known, and how it is known.
func (s System) OptionSince(o Option) (string, Known) {
	d := s.optionData(o)
	return d.since, d.known
}

func (s System) optionData(o Option) optionData {
	for _, d := range s.options {
		if d.option == o {
			return d
		}
	}
	return optionData{}
}

// has says that the system has all of these options.
func (s System) has(all Options) bool { return all&^Opts(s.Options()...) == 0 }
