package semantics

import (
	"strconv"
	"strings"
)

// Places is a set of kinds of sockets, told apart by what the rules look at.
type Places uint8

// The kinds of sockets, and sets of them.
const (
	IPv4    Places = 1 << iota // bound to a specific IPv4 address
	IPv4Any                    // bound to 0.0.0.0
	IPv6                       // bound to a specific IPv6 address
	IPv6Any                    // bound to ::, IPv6 only
	DualAny                    // bound to ::, IPv4 too
	Dialed                     // connected, whatever the address

	Specific = IPv4 | IPv6                               // bound to a specific address
	Listens  = IPv4 | IPv4Any | IPv6 | IPv6Any | DualAny // every listener
	Nowhere  = Places(0)                                 // no socket
)

// A Verdict says where an option keeps the promise that package reuse makes for
// it, and why not elsewhere. The tests derive each from the system's rules.
type Verdict struct {
	Holds Places
	Why   string // for the places that Holds leaves out
	But   string // what gets round it there, which needs more than the rules' two sockets
}

// Solaris114 is the system name of Oracle Solaris 11.4 and later. Every other
// name is a GOOS; "solaris" is Solaris before 11.4.
const Solaris114 = "solaris-11.4"

// Solaris returns the name for a Solaris whose uname has a version such as
// "11.4.0.15.0". That of illumos is a name of its own.
func Solaris(version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if n, err := strconv.Atoi(minor); major == "11" && err == nil && n >= 4 {
		return Solaris114
	}
	return "solaris"
}

// PortLB says where several sockets may bind one address and the kernel spreads
// new connections or flows over them.
func PortLB(system string) Verdict {
	switch system {
	case "linux", "android":
		// Measured, 5.10, 6.1, 6.12 and 6.18, TCP, MPTCP and UDP: SO_REUSEPORT
		// hashes the four-tuple over the sockets that have it.
		return Verdict{Holds: Listens}
	case "freebsd":
		// Measured, 14.0: four SO_REUSEPORT_LB listeners on a dual-stack ::
		// got 0/0/0/200 connections, on 0.0.0.0, on 127.0.0.1 and on an
		// IPv6-only :: about 50 each. The kernel has no group that belongs to
		// both families (in_pcbinslbgrouphash).
		return Verdict{
			Holds: Listens &^ DualAny,
			Why:   `a dual-stack socket joins no load-balancing group; use network "tcp4" or "tcp6" ("udp4", "udp6")`,
		}
	case "dragonfly":
		// Source, 5.9-dev: in_pcblookup_pkthash looks for the group of
		// SO_REUSEPORT sockets, in6_pcblookup_hash does not.
		return Verdict{
			Holds: IPv4 | IPv4Any,
			Why:   `SO_REUSEPORT spreads IPv4 only; use network "tcp4" or "udp4"`,
		}
	case Solaris114:
		// Source: libuv 98a4bab92, by an engineer of Oracle; not run.
		return Verdict{Holds: Listens}
	case "solaris":
		return Verdict{Why: "SO_REUSEPORT spreads connections from Solaris 11.4 on"}
	case "darwin", "ios":
		// Source, xnu-11417.101.15: in_pcblookup_hash takes the newest socket
		// on a specific address and the oldest on the wildcard.
		return Verdict{Why: "SO_REUSEPORT gives every connection to one of the sockets"}
	case "netbsd":
		// Measured, 7.99.34: 0/0/0/200 over four sockets.
		return Verdict{Why: "SO_REUSEPORT gives every connection to the socket bound last"}
	case "openbsd":
		// Source, 7.8: in_pcbhash_lookup.
		return Verdict{Why: "SO_REUSEPORT gives every connection to the socket bound last"}
	case "aix":
		// IBM's support page: from 7.2.5.0 on with "no -o soreuseport_lb=1",
		// which is 0 by default and cannot be read from the socket.
		return Verdict{Why: "SO_REUSEPORT does not spread connections unless the administrator sets soreuseport_lb"}
	case "illumos":
		return Verdict{Why: "the kernel has no SO_REUSEPORT"}
	case "windows":
		return Verdict{Why: "no option spreads connections; SO_REUSEADDR lets one socket take them from another"}
	}
	return noOptions()
}

// Exclusive says where, once a socket is bound, no other socket can bind its
// address or take its traffic with a more specific or a wildcard bind. The rules,
// from which it is derived, are about two sockets; see Verdict.But.
func Exclusive(system string) Verdict {
	switch system {
	case "linux", "android":
		// Measured, 5.10, 6.1, 6.12 and 6.18: of two sockets whatever overlaps
		// is refused unless both share by the same option. Not so of three: one
		// with SO_REUSEPORT is let in by another one of its user's, without a
		// look at the exclusive one (sk_reuseport_match on TCP, the first match of
		// udp_lib_lport_inuse). The tests of package reuse have what each loses.
		return Verdict{
			Holds: Listens | Dialed,
			But:   "against one bind: by several with SO_REUSEPORT any user gets beside every listener but a dual-stack :: (and 0.0.0.0 on UDP), which then cannot start again, and takes the traffic of an IPv4 address on UDP at once, of 0.0.0.0 on TCP and of an IPv6-only :: if it binds to their device and CPU",
		}
	case "windows":
		// Vendor, "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE".
		return Verdict{Holds: Listens | Dialed}
	case "solaris", Solaris114, "illumos":
		// Source, illumos: tcp_bindi and udp_do_bind refuse any overlap with
		// SO_EXCLBIND on either side, IPv4 against IPv6 too. Solaris: inferred
		// from it and from the manual pages.
		return Verdict{Holds: Listens | Dialed}
	case "openbsd", "netbsd", "darwin", "ios":
		// Measured, NetBSD 7.99.34; source, OpenBSD 7.8 in_pcbbind_locked and
		// xnu-11417.101.15 in_pcbbind. A bind with SO_REUSEADDR looks only for
		// an unconnected socket on exactly its own address: so it may bind
		// 127.0.0.1 beside a wildcard and take what goes there, and any address
		// beside a connected socket, while beside a socket on 127.0.0.1 it may
		// bind the wildcard, which gets nothing of 127.0.0.1's.
		return Verdict{
			Holds: Specific,
			Why:   "a socket with SO_REUSEADDR may still bind beside a wildcard or connected one; listen on a specific address",
		}
	case "freebsd":
		// Measured, 14.0: of 40 connections to a plain listener on 127.0.0.1, a
		// SO_REUSEPORT_LB listener on 0.0.0.0 of the same user got 40.
		return Verdict{Why: "a wildcard SO_REUSEPORT_LB listener takes the traffic of any specific address, and SO_REUSEADDR binds beside any wildcard"}
	case "dragonfly":
		return Verdict{Why: "not known to hold for any address"}
	case "aix":
		return Verdict{Why: "there is no such option, and what the kernel guarantees without one is not known"}
	}
	return noOptions()
}

// noOptions is the verdict for js, wasip1 and plan9: package net never calls
// a Control function there, and there is nothing for it to set.
func noOptions() Verdict {
	return Verdict{Why: "there are no socket options here"}
}
