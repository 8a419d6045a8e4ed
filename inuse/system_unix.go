//go:build unix

package inuse

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// longestPath is how long the path of a Unix socket may be: one byte is for the NUL.
const longestPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// writable reports whether this user may make a file in a folder.
func writable(folder string) bool { return unix.Access(folder, unix.W_OK|unix.X_OK) == nil }

// openFiles counts this process's descriptors without opening one, up to its limit.
func openFiles() (open, limit int) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, 0
	}
	limit = int(min(uint64(l.Cur), 1<<20)) //nolint:unconvert // it is signed on FreeBSD
	for fd := range limit {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open++
		}
	}
	return open, limit
}
