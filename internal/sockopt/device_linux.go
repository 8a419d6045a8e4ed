package sockopt

import (
	"os"

	"golang.org/x/sys/unix"
)

// BoundToDevice reports whether SO_BINDTODEVICE is set.
func BoundToDevice(fd uintptr) (bool, error) {
	name, err := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	return name != "", os.NewSyscallError("getsockopt", err)
}
