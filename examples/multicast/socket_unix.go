//go:build unix && !android && !ios

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// join makes a socket a member of a group on the loopback interface.
func join(fd uintptr, group [4]byte) error {
	mreq := unix.IPMreq{Multiaddr: group, Interface: loopback}
	if err := unix.SetsockoptIPMreq(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &mreq); err != nil {
		return os.NewSyscallError("setsockopt IP_ADD_MEMBERSHIP", err)
	}
	return joinedOnly(fd)
}

// sendThroughLoopback lets what the socket sends to a group go out by the loopback
// interface and come back to the members on this machine.
func sendThroughLoopback(fd uintptr) error {
	if err := unix.SetsockoptInet4Addr(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, loopback); err != nil {
		return os.NewSyscallError("setsockopt IP_MULTICAST_IF", err)
	}
	// It is 1 unless changed. One byte is what all systems take.
	return os.NewSyscallError("setsockopt IP_MULTICAST_LOOP",
		unix.SetsockoptByte(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1))
}
