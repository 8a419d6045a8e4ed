package group

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockdiag"
)

// handshakes waits until the handshakes that it finds under way are finished, and
// returns how many were not.
func handshakes(ctx context.Context, l *net.TCPListener, patience time.Duration) (int, error) {
	if err := pause(ctx, settled); err != nil {
		return 0, err
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	type tuple struct{ local, remote netip.AddrPort }
	underWay := func() (map[tuple]bool, error) {
		found := map[tuple]bool{}
		for _, family := range families(at.Addr()) {
			list, err := sockdiag.TCP(family, at.Port(), sockdiag.SynRecv)
			if err != nil {
				return nil, err
			}
			for _, s := range list {
				if at.Addr().IsUnspecified() || s.Local.Addr().Unmap() == at.Addr().Unmap() {
					found[tuple{s.Local, s.Remote}] = true
				}
			}
		}
		return found, nil
	}
	waiting, err := underWay()
	if err != nil {
		return 0, err
	}
	for end := time.Now().Add(patience); len(waiting) > 0 && time.Now().Before(end); {
		if err := pause(ctx, time.Millisecond); err != nil {
			return len(waiting), err
		}
		now, err := underWay()
		if err != nil {
			return len(waiting), err
		}
		for t := range waiting {
			if !now[t] {
				delete(waiting, t)
			}
		}
	}
	return len(waiting), nil
}

// families are those of the connections that a listener on an address may get.
func families(a netip.Addr) []uint8 {
	if a.Unmap().Is4() {
		return []uint8{unix.AF_INET}
	}
	return []uint8{unix.AF_INET6} // IPv4 ones of a dual-stack listener as ::ffff:a.b.c.d
}
