//go:build aix || solaris

package handover

import (
	"os"
	"time"
)

// lockFile has no lock that passes with a descriptor here. Instead, connections must
// have been refused for a second, for which no healthy process has a full queue.
func lockFile(path string, refused time.Duration) (*os.File, error) {
	return openLock(path, func(int) error {
		if refused < time.Second {
			return errLocked
		}
		return nil
	})
}
