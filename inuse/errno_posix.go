//go:build unix || js || wasip1

package inuse

import (
	"errors"
	"syscall"
)

// failureOf tells what an errno in an error says of an address.
func failureOf(err error) failure {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return inUse
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return denied
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return notAvailable
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return noFamily
	}
	return other
}
