package reuse

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// Not every kernel that runs Linux programs has Linux's rules: gVisor's network
// stack (4.19.0-gvisor, May 2026) differs in two. Each is found out by a trial, whose
// conclusive answer holds as long as the process.

// A trial tries a rule of the kernel's, once.
type trial struct {
	mu           sync.Mutex
	known, holds bool
	try          func(family, specific, wildcard string) (bool, error)
}

func (t *trial) ask() (holds bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known {
		return t.holds, nil
	}
	holds, err = t.try("4", "127.0.0.1", "0.0.0.0")
	if err != nil {
		var err6 error
		if holds, err6 = t.try("6", "::1", "::"); err6 == nil {
			err = nil
		}
	}
	if err != nil {
		return false, inconclusive{err}
	}
	t.known, t.holds = true, holds
	return holds, nil
}

// joinsListener reports whether SO_REUSEADDR on a TCP listener admits a second one,
// as in gVisor on another address that overlaps. If that cannot be found out, it
// counts as true.
func joinsListener() bool {
	joins, err := listenerTrial.ask()
	return joins || err != nil
}

var listenerTrial = trial{try: func(family, specific, wildcard string) (bool, error) {
	// A refusal may be about another socket that has the port on another address. So
	// three ports, which differ as the first sockets stay open, have to be refused.
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
			second.Close()
		}
		if joins, err := admitted(err); joins || err != nil {
			return joins, err
		}
	}
	return false, nil
}}

// countsAfterBind reports whether a sharing option that is set on a UDP socket after
// its bind lets a second one join. In gVisor it reads back, and does not.
func countsAfterBind() (bool, error) { return afterBindTrial.ask() }

var afterBindTrial = trial{try: func(family, _, wildcard string) (bool, error) {
	share := func(_, _ string, rc syscall.RawConn) (err error) {
		cerr := rc.Control(func(fd uintptr) { err = sockopt.Set(fd, table(Addr).level, table(Addr).name, 1) })
		return errors.Join(cerr, err)
	}
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
	if err == nil {
		second.Close()
	}
	return admitted(err)
}}

// admitted says what the error of a second bind tells: whether there was room.
func admitted(err error) (bool, error) {
	if errors.Is(err, syscall.EADDRINUSE) {
		return false, nil
	}
	return err == nil, err
}
