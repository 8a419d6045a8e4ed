package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long a probe may take. A SYN that is dropped is sent again after 1 s, and before
// Linux 6.5 then after 3 s. A machine that has far too much to do took 3.7 s without that
// (measured, 5.10, emulated), so where a member of the group is expected there is more
// time than where it may be a stranger, who accepts nothing perhaps.
const (
	ownTime   = 5 * time.Second
	otherTime = 2 * time.Second
)

// probe finds out which of the group's members has an index: it attaches a program
// that sends one connection there and the others where base does, and connects.
// It returns nil if none of them accepted. If the index is a stranger's, that one
// sees a connection that says nothing and goes.
func (g *Group) probe(ctx context.Context, index uint32, base program, limit time.Duration) (*member, error) {
	m := g.first()
	if m == nil {
		return nil, g.closedError("probe")
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	g.probes.begin()
	defer g.probes.end()
	got := make(chan *member, 1)
	var from netip.AddrPort
	at := g.target()
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if from, err = bindTo(int(fd), at.Addr()); err == nil {
				g.probes.add(from, got)
				err = attach(m, base.except(from.Port(), index))
			}
		})
		return errors.Join(cerr, err)
	}}
	d.SetMultipathTCP(false)
	dialed, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		if ctx.Err() == nil {
			g.probes.remove(from)
		} // else it may be in a queue nevertheless, and is still to be swallowed
		if errors.Is(err, syscall.ECONNRESET) { // the member that had the index has closed
			return nil, errMoved
		}
		return nil, fmt.Errorf("group: a probe did not connect: %w", err)
	}
	conn := dialed.(*net.TCPConn)
	defer conn.Close()
	_ = conn.SetLinger(0)
	_, _ = conn.Write([]byte{0}) // fails if it has been swallowed
	if err := arrived(ctx, conn); err != nil {
		return nil, err
	}

	// It is in a queue now, or accepted. How many does each member have to accept
	// until it would have come to this one? One may be neither queued nor counted.
	var ahead []func() (bool, error)
	for _, m := range g.allMembers() {
		n, err := queued(m.l)
		if err != nil {
			return nil, err
		}
		until := m.accepts.Load() + uint64(n) + 1
		ahead = append(ahead, func() (bool, error) {
			n, err := queued(m.l)
			return n > 0 && m.accepts.Load() < until, err
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for idle := 0; idle < 20; {
		select {
		case m := <-got:
			return m, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("group: a probe was not accepted: %w", ctx.Err())
		case <-tick.C:
		}
		for len(ahead) > 0 {
			more, err := ahead[0]()
			if err != nil {
				return nil, err
			}
			if more {
				break
			}
			ahead = ahead[1:]
		}
		if len(ahead) == 0 {
			idle++
		}
	}
	select { // should it come after all, it is still swallowed
	case m := <-got: // meanwhile
		return m, nil
	default:
		return nil, nil
	}
}

// silent tells whether a probe failed because nobody answered in time.
func silent(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// arrived waits until the other end's kernel has a connection in its queue, which
// it has when it acknowledges data.
func arrived(ctx context.Context, conn *net.TCPConn) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var info *unix.TCPInfo
		cerr := rc.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
		if err := errors.Join(cerr, os.NewSyscallError("getsockopt", err)); err != nil {
			return err
		}
		if info.Unacked == 0 {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("group: a probe did not arrive: %w", err)
		}
	}
}
