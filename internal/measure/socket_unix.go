//go:build unix

package measure

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Socket is one as the system names it.
type Socket = int

func start() error { return nil }

// errnoName returns the name of the errno in an error, "" if there is none.
func errnoName(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return ""
}

// Become gives this process, which must be root's, another user for good.
func Become(uid int) error { return errors.Join(syscall.Setgid(uid), syscall.Setuid(uid)) }
