//go:build unix && !solaris

package measure

import (
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/semantics"
)

// options are the numbers at SOL_SOCKET. SO_REUSEPORT_LB is FreeBSD's, SO_REUSESHAREUID
// Darwin's.
var options = map[semantics.Options]int{
	semantics.Addr: unix.SO_REUSEADDR, semantics.Port: unix.SO_REUSEPORT,
	semantics.LB: 0x10000, semantics.ShareUID: 0x1025,
}
