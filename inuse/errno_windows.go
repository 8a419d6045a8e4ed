package inuse

import (
	"errors"
	"strconv"

	"golang.org/x/sys/windows"
)

// failureOf tells what an errno in an error says of an address. Those of package
// syscall are Go's own inventions here.
func failureOf(err error) failure {
	switch {
	case errors.Is(err, windows.WSAEADDRINUSE):
		return inUse
	case errors.Is(err, windows.WSAEACCES):
		return denied
	case errors.Is(err, windows.WSAEADDRNOTAVAIL):
		return notAvailable
	case errors.Is(err, windows.WSAEAFNOSUPPORT):
		return noFamily
	}
	return other
}

// uname returns the version as package semantics wants it.
func uname() (release, version string) {
	major, minor, _ := windows.RtlGetNtVersionNumbers()
	return strconv.Itoa(int(major)) + "." + strconv.Itoa(int(minor)), ""
}
