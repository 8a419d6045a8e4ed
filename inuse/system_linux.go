package inuse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockopt"
)

// unprivileged returns the first port that any process may bind, and the advice for a lower
// port: "" if this process may bind it, because it has CAP_NET_BIND_SERVICE in the user
// namespace that owns its network namespace.
func unprivileged() (first int, advice string) {
	if scan("/proc/sys/net/ipv4/ip_unprivileged_port_start", &first) != nil {
		first = 1024 // before 4.11, gVisor
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil && data[0].Effective>>unix.CAP_NET_BIND_SERVICE&1 == 0 {
		advice = fmt.Sprintf("Use a port from %d on, give the program CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start.", first)
	}
	if networkOutside() {
		advice = fmt.Sprintf("Use a port from %d on, or lower net.ipv4.ip_unprivileged_port_start where this network namespace was made. "+
			"A capability of this user namespace does not count, because the network namespace belongs to one outside.", first)
	}
	return first, advice
}

// bindable reports whether a socket can bind an address. Linux also admits broadcast
// addresses, those of local routes, and any with net.ipv4.ip_nonlocal_bind. A socket with
// IP_BIND_ADDRESS_NO_PORT does not use a port for that.
func bindable(ctx context.Context, ip netip.Addr) bool {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return sockopt.Control(rc, func(fd uintptr) error {
			return sockopt.Set(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		})
	}}
	p, err := lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(ip, 0).String())
	if err == nil {
		p.Close()
	}
	return failureOf(err) != notAvailable
}

// networkOutside reports whether the network namespace belongs to a user namespace
// outside of this process's: NS_GET_USERNS then returns EPERM.
func networkOutside() bool {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return false
	}
	defer f.Close()
	owner, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err == nil {
		_ = unix.Close(owner)
	}
	return errors.Is(err, unix.EPERM)
}

// unmappedUser returns the uid that the kernel shows of all users that this user namespace
// does not map, or -1 if the namespace maps a user to that number.
func unmappedUser() (uid int) {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || scan("/proc/sys/kernel/overflowuid", &uid) != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count int64
		_, err := fmt.Sscan(line, &inside, &outside, &count)
		if err == nil && int64(uid) >= inside && int64(uid) < inside+count {
			return -1
		}
	}
	return uid
}

// likeLinux reports whether the kernel is Linux and not gVisor, which has other rules: its
// network stack takes every socket option, and Linux refuses one that does not exist.
func likeLinux() bool {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(s)
	return unix.SetsockoptInt(s, unix.SOL_SOCKET, 0x7fff, 1) != nil
}

// ephemeral counts the ports, of the range from which the kernel chooses, that it cannot
// use for the target. For connect, to is the remote address. Then a port is used by a
// connection to it, or by a bound socket on any address (source: __inet_hash_connect).
func ephemeral(ctx context.Context, t target, to netip.AddrPort) (first, last, taken int, err error) {
	if err := scan("/proc/sys/net/ipv4/ip_local_port_range", &first, &last); err != nil {
		return 0, 0, 0, err
	}
	t.local = netip.AddrPortFrom(t.local.Addr(), 0)
	list, _, err := t.sockets(ctx)
	ports := map[int]bool{}
	for _, s := range list {
		port, uses := int(s.Local.Port()), t.overlaps(s.Local.Addr(), s.V6Only)
		if to.IsValid() {
			uses = !s.Remote.IsValid() || uses && s.Remote == to
		}
		if uses && port >= first && port <= last {
			ports[port] = true
		}
	}
	return first, last, len(ports), err
}

// scan reads the numbers that a file begins with.
func scan(name string, numbers ...any) error {
	text, err := os.ReadFile(name)
	if err == nil {
		_, err = fmt.Sscan(string(text), numbers...)
	}
	return err
}

// dualStack reports whether package net makes a dual-stack socket for a wildcard.
func dualStack() bool {
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return !errors.Is(err, unix.EAFNOSUPPORT)
	}
	_ = unix.Close(s)
	return true
}
