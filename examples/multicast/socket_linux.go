//go:build !android

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// joinedOnly keeps out the groups that only other sockets have joined. Without it
// Linux gives a socket on the wildcard address every group that comes in on its
// port.
func joinedOnly(fd uintptr) error {
	return os.NewSyscallError("setsockopt IP_MULTICAST_ALL",
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
}
