//go:build unix || js || wasip1

package inuse

import (
	"errors"
	"syscall"
)

// failureOf returns what an errno in an error says of an address.
func failureOf(err error) failure {
	var errno syscall.Errno
	if errors.As(err, &errno); errno == syscall.EPERM {
		errno = syscall.EACCES
	}
	return map[syscall.Errno]failure{
		syscall.EADDRINUSE: inUse, syscall.EACCES: denied, syscall.EADDRNOTAVAIL: notAvailable,
		syscall.EAFNOSUPPORT: noFamily, syscall.EINVAL: invalid, syscall.EMFILE: processFull,
		syscall.ENFILE: systemFull, syscall.ECONNREFUSED: notListening, syscall.EPROTOTYPE: otherType,
	}[errno]
}
