package inuse

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// Package syscall's own constants are inventions of Go here. It returns its EINVAL for a
// path that is too long.
var failures = []errnoFailure{
	{windows.WSAEADDRINUSE, inUse}, {windows.WSAEACCES, denied}, {windows.WSAEADDRNOTAVAIL, notAvailable},
	{windows.WSAEAFNOSUPPORT, noFamily}, {windows.WSAEINVAL, invalid}, {syscall.EINVAL, invalid},
	{windows.WSAEMFILE, processFull}, {windows.WSAECONNREFUSED, notListening}, {windows.WSAEPROTOTYPE, otherType},
}
