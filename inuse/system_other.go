//go:build !linux

package inuse

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
)

// firstUnprivileged returns the first port that any process may bind, 0 where there are
// no others.
func firstUnprivileged() int {
	switch runtime.GOOS {
	case "windows", "darwin", "ios", "js", "wasip1", "plan9":
		return 0 // macOS has none since 10.14 on the wildcard address
	}
	return 1024
}

func privileged() bool { return os.Geteuid() <= 0 }

func privileges(first int) string {
	return fmt.Sprintf("Use a port from %d on, or start the program as a privileged user.", first)
}

func likeLinux() bool { return true }

func ephemeral(context.Context, target, func(netip.AddrPort) bool) (first, last, taken int, err error) {
	return 0, 0, 0, fmt.Errorf("%w: the range of ephemeral ports on %s", errors.ErrUnsupported, runtime.GOOS)
}

func unixHolders(context.Context, string) ([]Holder, error) {
	return nil, fmt.Errorf("%w: reading the Unix sockets of %s", errors.ErrUnsupported, runtime.GOOS)
}
