package measure

import (
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
)

// number returns the option's number at SOL_SOCKET, 0 if there is none.
func number(o semantics.Option) int {
	switch o {
	case semantics.Addr:
		return unix.SO_REUSEADDR
	case semantics.Port:
		return unix.SO_REUSEPORT
	case semantics.LB:
		return unix.SO_REUSEPORT_LB
	}
	return 0
}
