package reuse

import "golang.org/x/sys/unix"

// From FreeBSD 12.0 (1a43cff92a20); ENOPROTOOPT before.
const reuseportLB = unix.SO_REUSEPORT_LB
