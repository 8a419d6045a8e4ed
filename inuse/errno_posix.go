//go:build unix || js || wasip1

package inuse

import "syscall"

var failures = []errnoFailure{
	{syscall.EADDRINUSE, inUse}, {syscall.EACCES, denied}, {syscall.EPERM, denied}, {syscall.EADDRNOTAVAIL, notAvailable},
	{syscall.EAFNOSUPPORT, noFamily}, {syscall.EINVAL, invalid}, {syscall.EMFILE, processFull}, {syscall.ENFILE, systemFull},
	{syscall.ECONNREFUSED, notListening}, {syscall.EPROTOTYPE, otherType},
}
