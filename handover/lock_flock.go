//go:build unix && !aix && !solaris

package handover

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock that the current process of a place has. It belongs to the
// descriptor, so it passes to the next process with that.
func lockFile(path string, _ time.Duration) (*os.File, error) {
	return openLock(path, func(fd int) error {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errLocked
		}
		return os.NewSyscallError("flock", err)
	})
}
