package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// join makes a socket a member of a group on the loopback interface.
func join(fd uintptr, group [4]byte) error {
	mreq := windows.IPMreq{Multiaddr: group, Interface: loopback}
	return os.NewSyscallError("setsockopt IP_ADD_MEMBERSHIP",
		windows.SetsockoptIPMreq(windows.Handle(fd), windows.IPPROTO_IP, windows.IP_ADD_MEMBERSHIP, &mreq))
}

// sendThroughLoopback lets what the socket sends to a group go out by the loopback
// interface. IP_MULTICAST_LOOP is a matter of the receiving socket on Windows, and
// on unless it is changed.
func sendThroughLoopback(fd uintptr) error {
	return os.NewSyscallError("setsockopt IP_MULTICAST_IF",
		windows.SetsockoptInet4Addr(windows.Handle(fd), windows.IPPROTO_IP, windows.IP_MULTICAST_IF, loopback))
}
