package measure

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/windows"

	"example.com/reuse/internal/semantics"
)

// A Socket is one as the system names it.
type Socket = syscall.Handle

// options are the numbers at SOL_SOCKET. SO_EXCLUSIVEADDRUSE is ~SO_REUSEADDR in winsock2.h.
var options = map[semantics.Options]int{semantics.Addr: windows.SO_REUSEADDR, semantics.Excl: ^windows.SO_REUSEADDR}

// start starts Winsock: package net may not have done so.
var start = sync.OnceValue(func() error { return windows.WSAStartup(0x0202, &windows.WSAData{}) })

// errnoName returns the name that Unix has for the errno in an error, "" if there is none.
func errnoName(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	return map[syscall.Errno]string{
		windows.WSAEACCES: "EACCES", windows.WSAEADDRINUSE: "EADDRINUSE", windows.WSAEADDRNOTAVAIL: "EADDRNOTAVAIL",
		windows.WSAEAFNOSUPPORT: "EAFNOSUPPORT", windows.WSAEINVAL: "EINVAL", windows.WSAENOPROTOOPT: "ENOPROTOOPT",
	}[errno]
}

// Become fails: Windows gives a process no other user.
func Become(int) error { return errors.ErrUnsupported }
