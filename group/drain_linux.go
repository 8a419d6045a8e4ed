package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockdiag"
)

// settled is how long a connection takes at most from the kernel's choice of
// a listener to its queue, other than by the network.
const settled = 2 * time.Millisecond

// quiet is for how long nothing may have been accepted until a queue counts as
// empty, and seldom as long where the accepts cannot be counted.
const (
	quiet  = 5 * time.Millisecond
	seldom = 20 * time.Millisecond
)

func (g *Group) drainAll(ctx context.Context) error {
	if err := g.begin("drain"); err != nil {
		return err
	}
	g.stopHolding()
	g.turn.Lock()
	defer g.turn.Unlock()
	members := g.allMembers()
	reasons := g.drain(ctx, members)
	g.takeMembers()
	g.end(members)
	for _, m := range members {
		if n := m.abandoned.Load(); n > 0 {
			reasons.add(int(n), "not taken by Accept")
		}
	}
	g.releaseHold()
	return reasons.err()
}

// drain empties and closes members of one address.
func (g *Group) drain(ctx context.Context, members []*member) (r reasons) {
	if len(members) == 0 {
		return
	}
	first := members[0]
	if err := g.detachHold(); err != nil {
		r.add(0, err.Error())
	}
	successor, err := steering(ctx, g.key())
	if g.hold != nil {
		err = errNotSteered // this very group has
	}
	for _, m := range members {
		if err == nil && slices.Contains(successor, m.cookie) {
			err = errNotSteered
		}
	}
	if err != nil {
		r.add(0, err.Error())
		// Nobody else serves, or anybody: new connections are to find no listener.
		for _, m := range members {
			if err := blind(m.l); err != nil {
				r.add(0, err.Error())
			}
		}
	}
	wait := g.config.Handshake
	if s, err := deferred(first.l); err == nil {
		wait += time.Duration(s) * time.Second
	}
	if n, err := handshakes(ctx, first.l, wait); err != nil {
		r.add(n, err.Error())
	} else if n > 0 {
		r.add(n, "handshakes not finished")
	}
	n, err := g.empty(ctx, members)
	if err != nil {
		r.add(n, err.Error())
	}
	for _, m := range members {
		if n, err := m.closeEmpty(ctx); err != nil {
			r.add(n, err.Error())
		}
	}
	return r
}

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

// empty waits until the members' queues are empty and quiet. It returns how many
// connections are left if ctx ends before.
func (g *Group) empty(ctx context.Context, members []*member) (int, error) {
	if err := pause(ctx, settled); err != nil {
		return 0, err
	}
	var accepts uint64
	for since := time.Now(); ; {
		left, sum := 0, uint64(0)
		for _, m := range members {
			n, err := queued(m.l)
			if err != nil {
				return left, err
			}
			left += n
			if m.holding.Load() {
				left++
			}
			sum += m.accepts.Load()
		}
		if left > 0 || sum != accepts {
			accepts, since = sum, time.Now()
		} else if time.Since(since) >= quiet {
			return 0, nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return left, err
		}
	}
}

// closeEmpty closes a member out of sight of new connections. It returns how many
// there were in its queue at that moment.
func (m *member) closeEmpty(ctx context.Context) (int, error) {
	err := blind(m.l)
	n, qerr := queued(m.l)
	for n > 0 && qerr == nil && pause(ctx, time.Millisecond) == nil {
		n, qerr = queued(m.l)
	}
	if n > 0 {
		err = errors.Join(err, errors.New("in the queue when it closed"))
	}
	return n, errors.Join(err, qerr, m.close())
}

func drainListener(ctx context.Context, l net.Listener) error {
	tcp, ok := l.(*net.TCPListener)
	if !ok || tcp == nil {
		return fmt.Errorf("group: %w: %T is no *net.TCPListener", errors.ErrUnsupported, l)
	}
	var r reasons
	if _, err := tcp.SyscallConn(); err != nil {
		return err
	}
	if _, err := queued(tcp); err != nil {
		return err
	}
	cookie, err := cookieOf(tcp)
	if err == nil {
		var successor []uint64
		successor, err = steering(ctx, listenerKey(tcp))
		if err == nil && slices.Contains(successor, cookie) {
			err = errNotSteered
		}
	}
	if err != nil {
		r.add(0, err.Error())
		if err := blind(tcp); err != nil {
			r.add(0, err.Error())
		}
	}
	wait := 3 * time.Second
	if s, err := deferred(tcp); err == nil {
		wait += time.Duration(s) * time.Second
	}
	if n, err := handshakes(ctx, tcp, wait); err != nil {
		r.add(n, err.Error())
	} else if n > 0 {
		r.add(n, "handshakes not finished")
	}
	left := 0
	for since := time.Now(); time.Since(since) < seldom; {
		n, err := queued(tcp)
		if err != nil {
			return err // it was closed by somebody else
		}
		if left = n; n > 0 {
			since = time.Now()
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			r.add(left, err.Error())
			break
		}
	}
	if err := blind(tcp); err != nil {
		r.add(0, err.Error())
	}
	if n, err := queued(tcp); err == nil && n > left {
		r.add(n-left, "in the queue when it closed")
	}
	if err := tcp.Close(); err != nil {
		r.add(0, err.Error())
	}
	return r.err()
}

// reasons why a drain may have lost something.
type reasons struct {
	abandoned int
	why       []string
}

func (r *reasons) add(n int, why string) {
	r.abandoned += n
	if !slices.Contains(r.why, why) {
		r.why = append(r.why, why)
	}
}

func (r *reasons) err() error {
	if len(r.why) == 0 {
		return nil
	}
	return fmt.Errorf("group: drained, but %d connections abandoned: %s", r.abandoned, strings.Join(r.why, "; "))
}

// families are those of the connections that a listener on an address may get.
func families(a netip.Addr) []uint8 {
	if a.Unmap().Is4() {
		return []uint8{unix.AF_INET}
	}
	return []uint8{unix.AF_INET6} // IPv4 ones of a dual-stack listener as ::ffff:a.b.c.d
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
