//go:build aix || solaris

package handover

import "time"

// lock has no lock that passes with a descriptor. Instead, connections must have been
// refused for a second, for which no healthy process has a full queue.
func lock(_ int, refused time.Duration) error {
	if refused < time.Second {
		return errLocked
	}
	return nil
}
