//go:build darwin || freebsd || linux || netbsd || openbsd

package group

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// key names an address as one socket can bind it: the sockets that share it are
// those with the same key and user.
func key(ip net.IP, zone string, port int, dual bool) string {
	family, host := "4", "*"
	if ip.To4() == nil {
		family = "6"
	}
	switch {
	case dual:
		family = "46"
	case !ip.IsUnspecified():
		host = ip.String()
		if zone != "" { // a name or a number
			host += "%" + zone
			if n, err := strconv.Atoi(zone); err == nil {
				if i, err := net.InterfaceByIndex(n); err == nil {
					host = ip.String() + "%" + i.Name
				}
			}
		}
	}
	return fmt.Sprintf("%s %s %d", family, host, port)
}

func (g *Group) key() string {
	m := g.first()
	if m == nil {
		return "" // nobody has that
	}
	return listenerKey(m.l)
}

// listenerKey is the key of a listener's address.
func listenerKey(l *net.TCPListener) string {
	at := l.Addr().(*net.TCPAddr)
	dual := false
	if at.IP.To4() == nil && at.IP.IsUnspecified() {
		_ = onSocket(l, func(fd int) error {
			v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			dual = err == nil && v == 0
			return err
		})
	}
	return key(at.IP, at.Zone, at.Port, dual)
}

var errNotSteered = errors.New("no process has taken over")
