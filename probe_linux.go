package reuse

import (
	"context"
	"errors"
	"net"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// Not every kernel that runs Linux programs has Linux's rules: the network stack of
// gVisor (4.19.0-gvisor, May 2026) has two differences. There is a probe for each.

// joinsListener reports whether SO_REUSEADDR on a TCP listener admits a second one, as
// gVisor does on another address that overlaps. An inconclusive probe counts as true.
func joinsListener() bool { return !isUnsupported(listenerJoins.get(probeListener)) }

// heededAfterBind returns nil if a sharing option that is set on a UDP socket after its
// bind admits a second one. On gVisor the option reads back, and admits none.
func heededAfterBind() error { return optionHeeded.get(probeAfterBind) }

var listenerJoins, optionHeeded probeResult

func probeListener() error {
	return probeSecond("a second listener is refused", func(family, specific, wildcard string) (bool, error) {
		// A bind may fail because of another socket on another address of the port. So
		// the bind must fail for three ports, which differ while the first sockets are
		// open.
		for range 3 {
			first, err := net.Listen("tcp"+family, net.JoinHostPort(specific, "0"))
			if err != nil {
				return false, err
			}
			defer first.Close()
			_, port, err := net.SplitHostPort(first.Addr().String())
			if err != nil {
				return false, err
			}
			second, err := net.Listen("tcp"+family, net.JoinHostPort(wildcard, port))
			if err == nil {
				return true, second.Close()
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				return false, err
			}
		}
		return false, nil
	})
}

func probeAfterBind() error {
	const reason = "the kernel may choose a port that another socket shares, and ignores what is set after the bind; use a port"
	share := func(_, _ string, rc syscall.RawConn) error {
		return sockopt.Control(rc, func(fd uintptr) error {
			return sockopt.Set(fd, Addr.sockOption().level, Addr.sockOption().name, 1)
		})
	}
	return probeSecond(reason, func(family, _, wildcard string) (bool, error) {
		first, err := net.ListenPacket("udp"+family, net.JoinHostPort(wildcard, "0"))
		if err != nil {
			return false, err
		}
		defer first.Close()
		rc, err := first.(syscall.Conn).SyscallConn()
		if err != nil {
			return false, err
		}
		if err := share("", "", rc); err != nil {
			return false, err
		}
		lc := net.ListenConfig{Control: share}
		second, err := lc.ListenPacket(context.Background(), "udp"+family, first.LocalAddr().String())
		if errors.Is(err, syscall.EADDRINUSE) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, second.Close()
	})
}

// probeSecond returns nil if bind reports that a second socket was admitted, and the
// reason if not. If IPv4 is inconclusive, it tries IPv6.
func probeSecond(reason unsupportedReason, bind func(family, specific, wildcard string) (bool, error)) error {
	admitted, err := bind("4", "127.0.0.1", "0.0.0.0")
	if err != nil {
		var err6 error
		if admitted, err6 = bind("6", "::1", "::"); err6 != nil {
			return inconclusive{err}
		}
	}
	if !admitted {
		return reason
	}
	return nil
}
