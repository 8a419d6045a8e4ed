//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package reuse

import "golang.org/x/sys/unix"

// The BSDs, macOS and iOS. All have SO_REUSEADDR and SO_REUSEPORT from 4.4BSD.
// Which number spreads connections, and whether one does, differs: reuseportLB.
func table(o Option) entry {
	switch o {
	case Addr:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEPORT}
	case PortLB:
		return entry{level: unix.SOL_SOCKET, name: reuseportLB}
	case Exclusive:
		// A specific address is refused to all others unless both sockets have
		// SO_REUSEPORT. The SO_REUSEADDR of a socket that is bound counts for
		// nothing (in_pcbbind of each system; measured on NetBSD 7.99).
		return entry{clears: set(Port)}
	case DeferPort:
		return entry{why: "the kernel has no option to choose the port at connect"}
	}
	return entry{}
}

// udpBindsFirst: no port was given out twice for one address with any options
// (measured, FreeBSD 14.0, 5000 sockets, and NetBSD 7.99, 1500; in_pcb_lport of
// the others looks for an unused address likewise), and FreeBSD's
// SO_REUSEPORT_LB would join no group if it were set after the bind.
const udpBindsFirst = false

// errTupleInUse is what connect says when the four-tuple exists already
// (measured on FreeBSD 14.0 and NetBSD 7.99; in_pcbconnect of the others).
const errTupleInUse = unix.EADDRINUSE
