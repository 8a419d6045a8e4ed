package reuse

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// A sockKinds is a set of kinds of sockets.
type sockKinds uint16

const (
	tcp4    sockKinds = 1 << iota // TCP on a specific IPv4 address
	tcp4Any                       // TCP on 0.0.0.0
	tcp6                          // TCP on a specific IPv6 address
	tcp6Any                       // TCP on ::, IPv6 only
	tcpDual                       // TCP on ::, both families
	udp4
	udp4Any
	udp6
	udp6Any
	udpDual
	dialedTCP // connected, whatever the address
	dialedUDP

	specific    = tcp4 | tcp6 | udp4 | udp6
	listeners   = dialedTCP - 1
	dialed      = dialedTCP | dialedUDP
	everySocket = listeners | dialed
)

// A promise says for which sockets an option does on this system what its field
// in Config says.
type promise struct {
	holds      sockKinds
	privileged sockKinds // for these too, on a port that other users may not bind
	why        string    // why not for the others, and what to use instead
}

// promised returns the promise of an option. Addr, Port and DeferPort promise what
// their socket option does, PortLB and Exclusive what this table says. A test
// compares the table with the rules of internal/semantics, which has the evidence.
func promised(o Option) promise {
	switch o {
	case PortLB:
		return portLBOn(system())
	case Exclusive:
		return exclusiveOn(system())
	}
	if e := table(o); e.name == 0 {
		return promise{why: e.why}
	}
	return promise{holds: everySocket}
}

const noOptions = "there are no socket options here"

// portLBOn says where several sockets may bind one address and the kernel spreads
// new connections or flows over them.
func portLBOn(system string) promise {
	switch system {
	case "linux", "android", solaris114:
		return promise{holds: listeners}
	case "freebsd":
		return promise{
			holds: listeners &^ (tcpDual | udpDual),
			why:   `a dual-stack socket joins no load-balancing group; use network "tcp4" or "tcp6" ("udp4", "udp6")`,
		}
	case "dragonfly":
		return promise{
			holds: tcp4 | tcp4Any | udp4 | udp4Any,
			why:   `SO_REUSEPORT spreads IPv4 only; use network "tcp4" or "udp4"`,
		}
	case "solaris":
		return promise{why: "SO_REUSEPORT spreads connections from Solaris 11.4 on"}
	case "darwin", "ios":
		return promise{why: "SO_REUSEPORT gives every connection to one of the sockets"}
	case "netbsd", "openbsd":
		return promise{why: "SO_REUSEPORT gives every connection to the socket bound last"}
	case "aix":
		return promise{why: "SO_REUSEPORT does not spread connections unless the administrator sets soreuseport_lb"}
	case "illumos":
		return promise{why: "the kernel has no SO_REUSEPORT"}
	case "windows":
		return promise{why: "no option spreads connections; SO_REUSEADDR lets one socket take them from another"}
	}
	return promise{why: noOptions}
}

// exclusiveOn says where no other socket of any user gets the traffic of a socket's
// address while it lives.
func exclusiveOn(system string) promise {
	switch system {
	case "linux", "android":
		return promise{
			holds:      tcp4 | tcp6 | tcpDual | udpDual | dialedTCP,
			privileged: listeners,
			why:        `another user can take the traffic of this address in several binds; listen with network "tcp" or "udp" on ":port", or on a port that other users may not bind, by default one below 1024`,
		}
	case "windows", "solaris", solaris114, "illumos":
		return promise{holds: everySocket}
	case "openbsd", "netbsd", "darwin", "ios":
		return promise{
			holds: specific,
			why:   "a socket with SO_REUSEADDR may still bind beside a wildcard or connected one; listen on a specific address",
		}
	case "freebsd":
		return promise{why: "a wildcard SO_REUSEPORT_LB listener takes the traffic of any specific address, and SO_REUSEADDR binds beside any wildcard"}
	case "dragonfly":
		return promise{why: "not known to hold for any address"}
	case "aix":
		return promise{why: "there is no such option, and what the kernel guarantees without one is not known"}
	}
	return promise{why: noOptions}
}

// solaris114 is the system name of Oracle Solaris 11.4 and later. Every other name
// is a GOOS; "solaris" is Solaris before 11.4.
const solaris114 = "solaris-11.4"

// solarisName returns the name for a Solaris whose uname has a version such as
// "11.4.0.15.0".
func solarisName(version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if n, err := strconv.Atoi(minor); major == "11" && err == nil && n >= 4 {
		return solaris114
	}
	return "solaris"
}

// isPrivileged reports whether a port is one that Linux lets only a process with
// CAP_NET_BIND_SERVICE bind, of whichever user (4.11 and later; a container often
// permits all).
func isPrivileged(port string) bool {
	if runtime.GOOS != "linux" && runtime.GOOS != "android" {
		return false
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return false // it cannot be known
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(text)))
	n, portErr := strconv.Atoi(port)
	return err == nil && portErr == nil && 0 < n && n < first
}
