package measure

import (
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
)

// options are the numbers at SOL_SOCKET. SO_REUSEPORT is Solaris 11's, and no Go package
// has it.
var options = map[semantics.Options]int{semantics.Addr: unix.SO_REUSEADDR, semantics.Port: 0x100e, semantics.Excl: unix.SO_EXCLBIND}
