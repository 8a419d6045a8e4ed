//go:build !linux

package inuse

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// firstUnprivileged returns the first port that any process may bind, where there
// are others.
func firstUnprivileged() (port int, ok bool) {
	switch runtime.GOOS {
	case "windows", "darwin", "ios", "js", "wasip1", "plan9":
		return 0, false // macOS has none since 10.14 on the wildcard address
	}
	return 1024, true
}

func privileges(first int) string {
	return fmt.Sprintf("Use a port from %d on, or start the program as a privileged user.", first)
}

func ephemeral(context.Context, target, func(netip.AddrPort) bool) (first, last, taken int, err error) {
	return 0, 0, 0, fmt.Errorf("%w: the range of ephemeral ports on %s", errors.ErrUnsupported, runtime.GOOS)
}
