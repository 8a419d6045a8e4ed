//go:build unix

package sockopt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Get reads an option.
func Get(fd uintptr, level, name int) (int, error) {
	v, err := unix.GetsockoptInt(int(fd), level, name)
	return v, os.NewSyscallError("getsockopt", err)
}

// Set writes an option.
func Set(fd uintptr, level, name, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, name, value))
}

// Stream reports whether fd is a stream socket.
func Stream(fd uintptr) (bool, error) {
	t, err := Get(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return t == unix.SOCK_STREAM, err
}

// V6Only reports whether an IPv6 socket takes IPv6 only.
func V6Only(fd uintptr) (bool, error) {
	v, err := Get(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return v != 0, err
}

// Unsupported reports whether err means that this system, or this kind of socket, lacks
// an option. The syscall package counts ENOSYS and EOPNOTSUPP
// as [errors.ErrUnsupported], but not ENOPROTOOPT, the errno of setsockopt.
func Unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.ENOPROTOOPT)
}
