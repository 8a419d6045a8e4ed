package inuse

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
)

// firstUnprivileged returns the first port that any process may bind.
func firstUnprivileged() (port int, ok bool) {
	n, err := sysctl("net/ipv4/ip_unprivileged_port_start", 1)
	if err != nil { // before 4.11
		return 1024, true
	}
	return n[0], true
}

func privileges(first int) string {
	return fmt.Sprintf("Use a port from %d on, give the program CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start.", first)
}

// ephemeral counts the ports of the range from which the kernel chooses that have
// a socket that overlaps the target and whose remote address, if any, matches.
func ephemeral(ctx context.Context, t target, match func(netip.AddrPort) bool) (first, last, taken int, err error) {
	n, err := sysctl("net/ipv4/ip_local_port_range", 2)
	if err != nil {
		return 0, 0, 0, err
	}
	first, last = n[0], n[1]
	ports := make([]bool, 1<<16)
	err = t.sockets(ctx, func(s *socket) {
		port := int(s.local.Port())
		if port < first || port > last || ports[port] || !t.overlaps(s.local.Addr(), s.v6only) {
			return
		}
		if match(s.remote) {
			ports[port] = true
			taken++
		}
	})
	return first, last, taken, err
}

// sysctl reads a setting of this network namespace that is some numbers.
func sysctl(name string, numbers int) ([]int, error) {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return nil, err
	}
	return parseNumbers(b, numbers)
}

func parseNumbers(b []byte, numbers int) ([]int, error) {
	fields := bytes.Fields(b)
	if len(fields) != numbers {
		return nil, fmt.Errorf("%q are not %d numbers", b, numbers)
	}
	list := make([]int, numbers)
	for i, f := range fields {
		n, err := strconv.ParseUint(string(f), 10, 16)
		if err != nil {
			return nil, err
		}
		list[i] = int(n)
	}
	return list, nil
}
