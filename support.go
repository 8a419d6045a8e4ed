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

// A support is the set of sockets for which an option has the effect that its field in
// Config documents.
type support struct {
	kinds      sockKinds
	privileged sockKinds // these also, on a port that other users may not bind
	reason     string    // why others are unsupported, and what to use instead
}

// support returns the support of an option. A socket option alone decides for Addr, Port
// and DeferPort. A test compares the tables of PortLB and Exclusive with the rules of
// internal/semantics, which has the evidence.
func (o Option) support() support {
	switch opt := o.sockOption(); {
	case o == PortLB:
		return portLBSupport(system())
	case o == Exclusive:
		return exclusiveSupport(system())
	case opt.name == 0:
		return support{reason: opt.reason}
	}
	return support{kinds: everySocket}
}

const noOptions = "there are no socket options here"

// portLBSupport returns where several sockets may bind one address and the kernel spreads
// new connections or flows over them.
func portLBSupport(system string) support {
	switch system {
	case "linux", "android", solaris114:
		return support{kinds: listeners}
	case "freebsd":
		return support{
			kinds:  listeners &^ (tcpDual | udpDual),
			reason: `a dual-stack socket joins no load-balancing group; use network "tcp4" or "tcp6" ("udp4", "udp6")`,
		}
	case "dragonfly":
		return support{
			kinds:  tcp4 | tcp4Any | udp4 | udp4Any,
			reason: `SO_REUSEPORT spreads IPv4 only; use network "tcp4" or "udp4"`,
		}
	case "solaris":
		return support{reason: "SO_REUSEPORT spreads connections only from Solaris 11.4 on"}
	case "darwin", "ios":
		return support{reason: "SO_REUSEPORT gives every connection to one of the sockets"}
	case "netbsd", "openbsd":
		return support{reason: "SO_REUSEPORT gives every connection to the socket bound last"}
	case "aix":
		return support{reason: "SO_REUSEPORT does not spread connections unless the administrator sets soreuseport_lb"}
	case "illumos":
		return support{reason: "the kernel has no SO_REUSEPORT"}
	case "windows":
		return support{reason: "no option spreads connections; with SO_REUSEADDR it is undefined which socket gets them"}
	}
	return support{reason: noOptions}
}

// exclusiveSupport returns where no other socket of any user gets the traffic of
// a socket's address while that socket lives.
func exclusiveSupport(system string) support {
	switch system {
	case "linux", "android":
		return support{
			kinds:      tcp4 | tcp6 | tcpDual | udpDual | dialedTCP,
			privileged: listeners,
			reason:     `another user can take the traffic of this address in several binds; listen with network "tcp" or "udp" on ":port", or on a port that other users may not bind, by default one below 1024`,
		}
	case "windows", "solaris", solaris114, "illumos":
		return support{kinds: everySocket}
	case "openbsd", "netbsd", "darwin", "ios":
		return support{
			kinds:  specific,
			reason: "a socket with SO_REUSEADDR can still bind on the port of a wildcard or connected socket; listen on a specific address",
		}
	case "freebsd":
		return support{reason: "a wildcard SO_REUSEPORT_LB listener gets the traffic of any specific address, and a socket with SO_REUSEADDR can bind on the port of any wildcard socket"}
	case "dragonfly":
		return support{reason: "whether the kernel guarantees it for any address is unverified"}
	case "aix":
		return support{reason: "there is no such option, and what the kernel guarantees without one is unverified"}
	}
	return support{reason: noOptions}
}

// solaris114 is the system name of Oracle Solaris 11.4 and later. Every other name
// is a GOOS; "solaris" is Solaris before 11.4.
const solaris114 = "solaris-11.4"

// solarisName returns the system name for a version of uname such as "11.4.0.15.0".
func solarisName(version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if n, err := strconv.Atoi(minor); major == "11" && err == nil && n >= 4 {
		return solaris114
	}
	return "solaris"
}

const isLinux = runtime.GOOS == "linux" || runtime.GOOS == "android"

// isPrivileged reports whether binding a port requires CAP_NET_BIND_SERVICE on Linux.
// From 4.11 a sysctl sets the first port that does not. Many containers set it to 0.
func isPrivileged(port string) bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return false // inconclusive
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(text)))
	n, portErr := strconv.Atoi(port)
	return err == nil && portErr == nil && 0 < n && n < first
}
