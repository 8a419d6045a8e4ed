package reuse

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// SO_REUSEPORT in sys/socket.h of Solaris 11, missing in syscall and x/sys. On illumos
// the error is ENOPROTOOPT.
const soReusePort = 0x100e

// Solaris and illumos.
func (o Option) sockOption() sockOption {
	switch o {
	case Addr:
		return sockOption{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR}
	case Port:
		if runtime.GOOS == "illumos" {
			return sockOption{reason: "the kernel has no SO_REUSEPORT"}
		}
		return sockOption{level: unix.SOL_SOCKET, name: soReusePort}
	case PortLB:
		if runtime.GOOS == "illumos" {
			return sockOption{}
		}
		// Solaris 11.4 does not balance while SO_REUSEADDR is set, and package
		// net sets it on listeners (libuv 98a4bab92).
		return sockOption{level: unix.SOL_SOCKET, name: soReusePort, conflicts: set(Addr)}
	case Exclusive:
		return sockOption{level: unix.SOL_SOCKET, name: unix.SO_EXCLBIND}
	case DeferPort:
		return sockOption{reason: "the kernel has no option to choose the port at connect"}
	}
	return sockOption{}
}

// udpBindsFirst: a bind to port 0 ignores SO_REUSEADDR (source: illumos udp_do_bind).
const udpBindsFirst = false

// errTupleInUse is the errno of connect if the four-tuple exists, as on the BSDs
// (unverified).
const errTupleInUse = unix.EADDRINUSE

// system is the name of this system in support.go.
var system = sync.OnceValue(func() string {
	var u unix.Utsname
	if runtime.GOOS != "solaris" || unix.Uname(&u) != nil {
		return runtime.GOOS
	}
	return solarisName(unix.ByteSliceToString(u.Version[:]))
})
