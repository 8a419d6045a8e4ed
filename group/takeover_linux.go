package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockdiag"
)

// A hold is what TakeOver leaves to be undone when the listeners from before are
// gone: a program, spare members, and the lock.
type hold struct {
	lock   *lock
	before []uint64 // the cookies of the listeners from before
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
}

func (g *Group) takeOver(ctx context.Context, members int) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	if g.isEnded() {
		return &net.OpError{Op: "take over", Net: g.network, Addr: g.Addr(), Err: net.ErrClosed}
	}
	if g.hold != nil {
		return nil // already
	}
	held, err := acquire(ctx, g.key())
	if err != nil {
		return err
	}
	h := &hold{lock: held, done: make(chan struct{})}
	if err := g.steer(ctx, members, h); err != nil {
		err = errors.Join(err, g.undo())
		held.release()
		return err
	}
	if len(h.before) == 0 {
		held.release()
		return nil
	}
	var hctx context.Context
	hctx, h.cancel = context.WithCancel(context.Background())
	g.mu.Lock()
	g.hold = h
	g.mu.Unlock()
	go g.settleLater(hctx, h)
	return nil
}

func (g *Group) key() string { return listenerKey(g.listeners[0].member.l) }

// listenerKey is the lock's name for the address of a listener.
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

// steer attaches the program, and opens a spare member for each listener from
// before. When one of those leaves, the last member takes its number: that is
// a spare then, and the program goes on to name the right ones, however and in
// whatever order they leave.
func (g *Group) steer(ctx context.Context, members int, h *hold) error {
	m := g.listeners[0].member
	if err := detach(m); err != nil { // whoever attached it is gone
		return err
	}
	for range 5 {
		all, err := g.peers()
		if err != nil {
			return err
		}
		if members > len(all) {
			return fmt.Errorf("group: %w: %d members, and there are %d listeners", os.ErrInvalid, members, len(all))
		}
		named, own, err := g.indexes(ctx, members, all)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return err
		}
		var newest []uint64
		h.before = h.before[:0]
		for i, s := range all {
			if g.newest(i, members, all) {
				newest = append(newest, s.Cookie)
			} else {
				h.before = append(h.before, s.Cookie)
			}
		}
		if len(h.before) == 0 {
			return g.undo()
		}
		base, err := choose(named)
		if err != nil {
			return err
		}
		if err := attach(m, base); err != nil {
			return err
		}
		if err := g.openSpares(ctx, len(h.before)); err != nil {
			return err
		}
		// From here on whoever leaves moves a spare. Before, it could have been one
		// of ours.
		err = g.verify(ctx, own, base)
		if errors.Is(err, errMoved) {
			if err := g.undo(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := attach(m, base); err != nil {
			return err
		}
		h.lock.steers(newest)
		return nil
	}
	return fmt.Errorf("group: listeners came and went while this one took over: %w", errMoved)
}

var errMoved = errors.New("the members have other numbers")

// peers returns the listeners of the group's address that share with it, its own
// among them, in the order in which they began to listen.
func (g *Group) peers() ([]sockdiag.Socket, error) {
	return peersOf(g.listeners[0].member.l)
}

func peersOf(l *net.TCPListener) ([]sockdiag.Socket, error) {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	family := uint8(unix.AF_INET6)
	if at.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	cookie, err := cookieOf(l)
	if err != nil {
		return nil, err
	}
	all, err := sockdiag.TCP(family, at.Port(), sockdiag.Listen)
	if err != nil {
		return nil, err
	}
	me := slices.IndexFunc(all, func(s sockdiag.Socket) bool { return s.Cookie == cookie })
	if me < 0 {
		return nil, fmt.Errorf("group: sock_diag does not show this process's own listener on %v", at)
	}
	mine := all[me]
	all = slices.DeleteFunc(all, func(s sockdiag.Socket) bool {
		return s.Local != mine.Local || s.V6Only != mine.V6Only || s.Interface != mine.Interface || s.UID != mine.UID
	})
	if family == unix.AF_INET { // is listed newest first
		slices.Reverse(all)
	}
	return all, nil
}

// owns tells whether a cookie is one of the group's.
func (g *Group) owns(cookie uint64) bool {
	for _, m := range g.allMembers() {
		if m.cookie == cookie {
			return true
		}
	}
	return false
}

// newest tells whether the i-th of all listeners is one to steer to.
func (g *Group) newest(i, members int, all []sockdiag.Socket) bool {
	if members == 0 {
		return g.owns(all[i].Cookie)
	}
	return i >= len(all)-members
}

// indexes finds the numbers of the members to steer to, and those of the group's
// own among them. As long as nobody has left, they are numbered in the order of
// all; that is checked by asking for the group's own. If somebody has, all numbers
// are asked for, which only tells the group's own.
func (g *Group) indexes(ctx context.Context, members int, all []sockdiag.Socket) (named, own []uint32, err error) {
	inOrder := true
	for i, s := range all {
		if g.newest(i, members, all) {
			named = append(named, uint32(i))
		}
		if !inOrder || !g.owns(s.Cookie) {
			continue
		}
		own = append(own, uint32(i))
		m, err := g.probe(ctx, uint32(i), byHash())
		if err != nil {
			return nil, nil, err
		}
		inOrder = m != nil && m.cookie == s.Cookie
	}
	switch {
	case inOrder:
		return named, own, nil
	case members > len(g.listeners):
		return nil, nil, errors.New("group: a listener has left since this generation began to listen, and the numbers of its other processes cannot be known: let it listen again")
	}
	own = nil
	found, err := g.arrangement(ctx, len(all), byHash())
	if err != nil {
		return nil, nil, err
	}
	for i, m := range found {
		if m != nil {
			own = append(own, uint32(i))
		}
	}
	if len(own) != len(g.listeners) {
		return nil, nil, errMoved
	}
	return own, own, nil
}

// arrangement asks for the members with the numbers 0 to n-1; strangers are nil.
func (g *Group) arrangement(ctx context.Context, n int, base program) ([]*member, error) {
	found := make([]*member, n)
	for i := range found {
		m, err := g.probe(ctx, uint32(i), base)
		if err != nil {
			return nil, err
		}
		found[i] = m
	}
	return found, nil
}

// verify checks that the group's own listeners are at the indexes where they were.
func (g *Group) verify(ctx context.Context, own []uint32, base program) error {
	seen := map[*member]bool{}
	for _, i := range own {
		m, err := g.probe(ctx, i, base)
		if err != nil {
			return err
		}
		if m == nil || m.spare {
			return errMoved
		}
		seen[m] = true
	}
	if len(seen) != len(g.listeners) {
		return errMoved
	}
	return nil
}

// openSpares opens n members more. What they accept goes to the group's listeners.
func (g *Group) openSpares(ctx context.Context, n int) error {
	lc, err := g.config.Socket.ListenConfig(net.ListenConfig{})
	if err != nil {
		return err
	}
	lc.SetMultipathTCP(false)
	for i := range n {
		l, err := lc.Listen(ctx, g.network, g.Addr().String())
		if err != nil {
			return err
		}
		m, err := newMember(l.(*net.TCPListener), g.listeners[i%len(g.listeners)])
		if err != nil {
			l.Close()
			return err
		}
		m.spare = true
		g.mu.Lock()
		g.members = append(g.members, m)
		g.mu.Unlock()
		go m.pump(&g.probes)
	}
	return nil
}

// undo detaches the program and closes the spares, the newest first: then none of
// the members that stay gets another number.
func (g *Group) undo() error {
	err := detach(g.listeners[0].member)
	members := g.allMembers()
	for _, m := range slices.Backward(members) {
		if m.spare {
			err = errors.Join(err, g.closeMember(m))
		}
	}
	return err
}

// closeMember takes a member out of the group.
func (g *Group) closeMember(m *member) error {
	g.mu.Lock()
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	g.mu.Unlock()
	return m.close()
}

// settleLater waits until the listeners from before are gone, or for HoldFor, and
// ends the steering.
func (g *Group) settleLater(ctx context.Context, h *hold) {
	defer close(h.done)
	hold := time.NewTimer(g.config.HoldFor)
	defer hold.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			return
		case <-hold.C:
			waiting = false
		case <-tick.C:
			all, err := g.peers()
			waiting = err != nil || slices.ContainsFunc(all, func(s sockdiag.Socket) bool {
				return slices.Contains(h.before, s.Cookie)
			})
		}
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	if g.isEnded() || ctx.Err() != nil {
		return // Drain or Close does the rest
	}
	g.settle(ctx)
	g.releaseHold()
}

// settle closes the spares, with a program each time that names only members that
// the close neither takes nor moves, and detaches it. If it fails, spares that are
// left serve on, which does no harm.
func (g *Group) settle(ctx context.Context) error {
	m := g.listeners[0].member
	defer detach(m)
	for {
		all, err := g.peers()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(g.allMembers(), func(m *member) bool { return m.spare }) {
			return nil
		}
		found, err := g.arrangement(ctx, len(all), byHash())
		if err != nil {
			return err
		}
		last := len(found) - 1
		leaves := last
		if found[last] == nil || !found[last].spare {
			leaves = slices.IndexFunc(found, func(m *member) bool { return m != nil && m.spare })
		}
		if leaves < 0 {
			return errMoved
		}
		var listeners, spares []uint32
		for i, m := range found {
			switch {
			case m == nil || i == leaves || i == last:
			case m.spare:
				spares = append(spares, uint32(i))
			default:
				listeners = append(listeners, uint32(i))
			}
		}
		if len(listeners) == 0 { // a group of one, about to move
			listeners = spares
		}
		p, err := choose(listeners)
		if err != nil {
			return err
		}
		if len(listeners) == 0 {
			// The last two. Until the close the last one gets all; then its number
			// is out of range, and there is only the one to choose.
			p = program{ret(uint32(last))}
		}
		if err := attach(m, p); err != nil {
			return err
		}
		spare := found[leaves]
		if _, err := g.empty(ctx, []*member{spare}); err != nil {
			return err
		}
		if err := g.closeMember(spare); err != nil {
			return err
		}
	}
}

// stopHolding ends the goroutine that waits to settle.
func (g *Group) stopHolding() {
	g.mu.Lock()
	h := g.hold
	g.mu.Unlock()
	if h != nil {
		h.cancel()
		<-h.done
	}
}

// detachHold takes away the program of a group that has taken over and now goes
// itself: whoever remains is to be found again.
func (g *Group) detachHold() error {
	g.mu.Lock()
	h := g.hold
	g.mu.Unlock()
	if h == nil {
		return nil
	}
	return detach(g.listeners[0].member)
}

// releaseHold frees the lock. The program is detached, or the members closed.
func (g *Group) releaseHold() {
	g.mu.Lock()
	h := g.hold
	g.hold = nil
	g.mu.Unlock()
	if h != nil {
		h.cancel()
		h.lock.release()
	}
}
