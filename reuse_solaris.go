package reuse

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// SO_REUSEPORT in Solaris 11's sys/socket.h; neither syscall nor x/sys has it.
// illumos has no such option and answers ENOPROTOOPT.
const soReusePort = 0x100e

// Solaris and illumos.
func table(o Option) entry {
	switch o {
	case Addr:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port:
		if runtime.GOOS == "illumos" {
			return entry{why: "the kernel has no SO_REUSEPORT"}
		}
		return entry{level: unix.SOL_SOCKET, name: soReusePort}
	case PortLB:
		if runtime.GOOS == "illumos" {
			return entry{}
		}
		// Solaris 11.4 does not balance while SO_REUSEADDR is set, and package
		// net sets it on listeners (libuv 98a4bab92).
		return entry{level: unix.SOL_SOCKET, name: soReusePort, clears: set(Addr)}
	case Exclusive:
		return entry{level: unix.SOL_SOCKET, name: unix.SO_EXCLBIND}
	case DeferPort:
		return entry{why: "the kernel has no option to choose the port at connect"}
	}
	return entry{}
}

// udpBindsFirst: a bind to port 0 ignores SO_REUSEADDR (illumos, udp_do_bind).
const udpBindsFirst = false

// errTupleInUse is what connect says when the four-tuple exists already (as on
// the BSDs; not known for Solaris and illumos).
const errTupleInUse = unix.EADDRINUSE

// system is the name of this system in promise.go.
var system = sync.OnceValue(func() string {
	var u unix.Utsname
	if runtime.GOOS != "solaris" || unix.Uname(&u) != nil {
		return runtime.GOOS
	}
	return solarisName(unix.ByteSliceToString(u.Version[:]))
})
