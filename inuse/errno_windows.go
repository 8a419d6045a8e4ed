package inuse

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// failureOf returns what an errno in an error says of an address. Package syscall's own
// constants are inventions of Go here, of which it returns EINVAL for a long path.
func failureOf(err error) failure {
	var errno syscall.Errno
	errors.As(err, &errno)
	return map[syscall.Errno]failure{
		windows.WSAEADDRINUSE: inUse, windows.WSAEACCES: denied, windows.WSAEADDRNOTAVAIL: notAvailable,
		windows.WSAEAFNOSUPPORT: noFamily, windows.WSAEINVAL: invalid, syscall.EINVAL: invalid,
		windows.WSAEMFILE: processFull, windows.WSAECONNREFUSED: notListening, windows.WSAEPROTOTYPE: otherType,
	}[errno]
}
