package reuse

import "golang.org/x/sys/unix"

// AIX.
func table(o Option) entry {
	switch o {
	case Addr:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEPORT}
	case DeferPort:
		return entry{why: "the kernel has no option to choose the port at connect"}
	}
	return entry{}
}

// udpBindsFirst: not known to be needed.
const udpBindsFirst = false

// errTupleInUse is what connect says when the four-tuple exists already (as on
// the BSDs; not known for AIX).
const errTupleInUse = unix.EADDRINUSE
