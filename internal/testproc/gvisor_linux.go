package testproc

import (
	"strings"

	"golang.org/x/sys/unix"
)

// OnGVisor tells whether the kernel is gVisor's, whose rules differ from Linux'.
func OnGVisor() bool {
	var u unix.Utsname
	return unix.Uname(&u) == nil && strings.HasSuffix(unix.ByteSliceToString(u.Release[:]), "-gvisor")
}
