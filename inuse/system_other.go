//go:build !linux

package inuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
)

// unprivileged returns the first port that any process may bind, 0 for every port, and the
// advice for a lower port: "" if this process may bind it.
func unprivileged() (first int, advice string) {
	switch runtime.GOOS {
	case "windows", "darwin", "ios", "js", "wasip1", "plan9":
		return 0, "" // macOS has none since 10.14 on the wildcard address
	}
	if os.Geteuid() == 0 {
		return 1024, ""
	}
	return 1024, "Use a port from 1024 on, or start the program as a privileged user."
}

// bindable reports whether a socket can bind an address: a wildcard, or one that an
// interface has. js has no addresses to show.
func bindable(_ context.Context, ip netip.Addr) bool {
	addresses, _ := net.InterfaceAddrs()
	return len(addresses) == 0 || ip.IsUnspecified() || slices.Contains(addrs(addresses), ip.WithZone(""))
}

func likeLinux() bool { return true }

func ephemeral(context.Context, target, netip.AddrPort) (first, last, taken int, err error) {
	return 0, 0, 0, fmt.Errorf("%w: the range of ephemeral ports on %s", errors.ErrUnsupported, runtime.GOOS)
}

func unixHolders(context.Context, string) ([]Holder, error) {
	return nil, fmt.Errorf("%w: reading the Unix sockets of %s", errors.ErrUnsupported, runtime.GOOS)
}

// dualStack reports whether package net makes a dual-stack socket for a wildcard.
func dualStack() bool { return runtime.GOOS != "openbsd" && runtime.GOOS != "dragonfly" }
