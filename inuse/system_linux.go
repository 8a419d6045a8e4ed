package inuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstUnprivileged returns the first port that any process may bind.
func firstUnprivileged() int {
	n, err := sysctl("net/ipv4/ip_unprivileged_port_start", 1)
	if err != nil { // before 4.11, gVisor
		return 1024
	}
	return n[0]
}

// privileged reports whether this process may bind the ports below: it has
// CAP_NET_BIND_SERVICE in the user namespace that owns its network namespace.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return os.Geteuid() == 0
	}
	return data[0].Effective>>unix.CAP_NET_BIND_SERVICE&1 != 0 && !networkOutside()
}

// networkOutside reports whether the network namespace belongs to a user namespace
// outside of this process's: ns_get_owner then returns EPERM.
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

func privileges(first int) string {
	if networkOutside() {
		return fmt.Sprintf("Use a port from %d on, or lower net.ipv4.ip_unprivileged_port_start where this network namespace was made. "+
			"A capability of this user namespace does not count, because the network namespace belongs to one outside.", first)
	}
	return fmt.Sprintf("Use a port from %d on, give the program CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start.", first)
}

// outsideNamespace reports whether a uid is the one that the kernel shows of all users
// that this user namespace does not map. Where it is mapped it is a user of its own.
func outsideNamespace(uid int) bool {
	overflow, err := sysctl("kernel/overflowuid", 1)
	if err != nil || uid != overflow[0] {
		return false
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	for line := range bytes.Lines(text) {
		n, err := numbers(line, 3) // inside, outside, count
		if err == nil && uid >= n[0] && uid-n[0] < n[2] {
			return false
		}
	}
	return err == nil
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

// ephemeral counts the ports of the range from which the kernel chooses that have
// a socket that overlaps the target and whose remote address, if any, matches.
func ephemeral(ctx context.Context, t target, match func(netip.AddrPort) bool) (first, last, taken int, err error) {
	n, err := sysctl("net/ipv4/ip_local_port_range", 2)
	if err != nil {
		return 0, 0, 0, err
	}
	t.local = netip.AddrPortFrom(t.local.Addr(), 0)
	list, _, err := t.sockets(ctx)
	ports := map[uint16]bool{}
	for _, s := range list {
		port, remote := s.Local.Port(), s.Remote
		if remote.Port() == 0 {
			remote = netip.AddrPort{}
		}
		remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
		if int(port) >= n[0] && int(port) <= n[1] && t.overlaps(s.Local.Addr(), s.V6Only) && match(remote) {
			ports[port] = true
		}
	}
	return n[0], n[1], len(ports), err
}

// sysctl reads a setting of this network namespace that is some numbers.
func sysctl(name string, count int) ([]int, error) {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return nil, err
	}
	return numbers(b, count)
}

// numbers reads a text that is some numbers.
func numbers(text []byte, count int) ([]int, error) {
	fields := bytes.Fields(text)
	if len(fields) != count {
		return nil, fmt.Errorf("%q are not %d numbers", text, count)
	}
	list := make([]int, count)
	for i, f := range fields {
		n, err := strconv.ParseUint(string(f), 10, 32)
		if err != nil {
			return nil, err
		}
		list[i] = int(min(n, math.MaxInt32)) // a uid_map counts 2^32 users
	}
	return list, nil
}
