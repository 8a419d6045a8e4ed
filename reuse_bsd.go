//go:build aix || darwin || dragonfly || freebsd || netbsd || openbsd

package reuse

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// The BSDs, macOS, iOS and AIX. All have SO_REUSEADDR and SO_REUSEPORT from 4.4BSD.
// The option that spreads connections differs: reuseportLB.
func (o Option) sockOption() sockOption {
	switch o {
	case Addr:
		return sockOption{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port:
		return sockOption{level: unix.SOL_SOCKET, name: unix.SO_REUSEPORT}
	case PortLB:
		return sockOption{level: unix.SOL_SOCKET, name: reuseportLB}
	case Exclusive:
		// A second bind to a specific address fails unless both sockets have
		// SO_REUSEPORT. SO_REUSEADDR of the first socket has no effect (in_pcbbind
		// of each BSD; measured on NetBSD 7.99).
		if runtime.GOOS == "aix" {
			return sockOption{} // unsupported
		}
		return sockOption{conflicts: set(Port)}
	case DeferPort:
		return sockOption{reason: "the kernel has no option to choose the port at connect"}
	}
	return sockOption{}
}

// udpBindsFirst: port 0 returned no port twice for one address with any options (FreeBSD
// 14.0, 5000 sockets; NetBSD 7.99, 1500 sockets; source of the others: in_pcb_lport; AIX
// unverified). SO_REUSEPORT_LB joins no group if it is set after the bind.
const udpBindsFirst = false

// errTupleInUse is the errno of connect if the four-tuple exists (FreeBSD 14.0, NetBSD
// 7.99; source of the others: in_pcbconnect; AIX unverified).
const errTupleInUse = unix.EADDRINUSE
