//go:build !android

package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockdiag"
)

// held returns the TCP endpoints that the kernel keeps on a port. The last step to
// TIME_WAIT may take the kernel a moment.
func held(at netip.AddrPort) ([]left, error) {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		sockets, err := sockdiag.TCP(unix.AF_INET, at.Port(), ^uint32(0))
		if err != nil {
			return nil, err
		}
		var list []left
		settled := true
		for _, s := range sockets {
			name := state(s.State)
			list = append(list, left{s.Local, s.Remote, name})
			settled = settled && (name == "TIME_WAIT" || name == "ESTABLISHED")
		}
		if settled && len(list) > 0 {
			return list, nil
		}
		if time.Since(begin) > patience {
			return nil, fmt.Errorf("nothing is left on %v but %v", at, list)
		}
	}
}

// state returns a state's name from its bit.
func state(bit uint32) string {
	switch bit {
	case 1 << 1:
		return "ESTABLISHED"
	case 1 << 4:
		return "FIN_WAIT1"
	case 1 << 5:
		return "FIN_WAIT2"
	case 1 << 6:
		return "TIME_WAIT"
	case sockdiag.Listen:
		return "LISTEN"
	}
	return "state " + strconv.FormatUint(uint64(bit), 2)
}
