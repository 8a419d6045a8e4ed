package sockopt

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// From Microsoft's "SOL_SOCKET Socket Options"; x/sys lacks it.
const soType = 0x1008 // SO_TYPE

// Get reads an option.
func Get(fd uintptr, level, name int) (int, error) {
	v, err := windows.GetsockoptInt(windows.Handle(fd), level, name)
	return v, os.NewSyscallError("getsockopt", err)
}

// Set writes an option.
func Set(fd uintptr, level, name, value int) error {
	return os.NewSyscallError("setsockopt", windows.SetsockoptInt(windows.Handle(fd), level, name, value))
}

// Stream reports whether fd is a stream socket.
func Stream(fd uintptr) (bool, error) {
	t, err := Get(fd, windows.SOL_SOCKET, soType)
	return t == windows.SOCK_STREAM, err
}

// V6Only reports whether an IPv6 socket takes IPv6 only.
func V6Only(fd uintptr) (bool, error) {
	v, err := Get(fd, windows.IPPROTO_IPV6, windows.IPV6_V6ONLY)
	return v != 0, err
}

// Unsupported reports whether err means that this system, or this kind of socket, lacks
// an option. Winsock has numbers of its own, which the syscall
// package does not count as [errors.ErrUnsupported].
func Unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) ||
		errors.Is(err, windows.WSAENOPROTOOPT) || errors.Is(err, windows.WSAEOPNOTSUPP)
}
