package measure

import (
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
)

// number returns the option's number at SOL_SOCKET, 0 if there is none.
// SO_REUSEPORT is Solaris 11's, and in no Go package; illumos refuses it.
func number(o semantics.Option) int {
	switch o {
	case semantics.Addr:
		return unix.SO_REUSEADDR
	case semantics.Port:
		return 0x100e
	case semantics.Excl:
		return unix.SO_EXCLBIND
	}
	return 0
}
