//go:build unix && !aix && !solaris

package handover

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func lock(fd int, _ time.Duration) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return os.NewSyscallError("flock", err)
}
