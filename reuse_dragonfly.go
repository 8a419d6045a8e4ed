package reuse

import "golang.org/x/sys/unix"

// From DragonFly 3.6 SO_REUSEPORT spreads connections by a hash, for IPv4.
const reuseportLB = unix.SO_REUSEPORT
