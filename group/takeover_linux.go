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
	named  []uint32 // the indexes that the program names
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
}

// steerHere steers new connections to the newest members.
func (g *Group) steerHere(ctx context.Context, members int) error {
	if g.hold != nil {
		return nil // already
	}
	held, err := acquire(ctx, g.key())
	if err != nil {
		return err
	}
	h := &hold{lock: held, done: make(chan struct{})}
	if err := g.steer(ctx, members, h); err != nil {
		err = errors.Join(err, g.undo(ctx))
		held.release()
		return err
	}
	if len(h.before) == 0 {
		held.release()
		return nil
	}
	var hctx context.Context
	hctx, h.cancel = context.WithCancel(g.shut)
	g.mu.Lock()
	g.hold = h
	g.mu.Unlock()
	go g.settleLater(hctx, h)
	return nil
}

// steered is what a group keeps of its TakeOver.
type steered struct {
	pumping
	hold   *hold // what is still to be undone
	failed error // what could not be undone
}

// own returns the members that are not spares.
func (g *Group) own() []*member {
	return slices.DeleteFunc(g.allMembers(), func(m *member) bool { return m.spare() })
}

func (g *Group) spares() []*member {
	return slices.DeleteFunc(g.allMembers(), func(m *member) bool { return !m.spare() })
}

// succeeded returns nil if a successor steers new connections to listeners that are
// none of the members.
func (g *Group) succeeded(ctx context.Context, members []*member) error {
	if g.hold != nil {
		return errNotSteered // this very group has
	}
	successor, err := steering(ctx, g.key())
	for _, m := range members {
		if err == nil && slices.Contains(successor, m.cookie) {
			err = errNotSteered
		}
	}
	return err
}

// listenerSucceeded is succeeded for a plain listener.
func listenerSucceeded(ctx context.Context, l *net.TCPListener) error {
	cookie, err := cookieOf(l)
	if err != nil {
		return err
	}
	successor, err := steering(ctx, listenerKey(l))
	if err == nil && slices.Contains(successor, cookie) {
		err = errNotSteered
	}
	return err
}

// steer attaches the program, and opens a spare member for each listener from
// before. When one of those leaves, the last member takes its number: that is
// a spare then, and the program goes on to name the right ones, however and in
// whatever order they leave.
func (g *Group) steer(ctx context.Context, members int, h *hold) error {
	m := g.first()
	if err := detach(m); err != nil { // whoever attached it is gone
		return err
	}
	if len(g.spares()) > 0 { // settling has failed before
		if err := g.undo(ctx); err != nil {
			return err
		}
	}
	for try := range 6 {
		all, err := g.peers(try%2 == 0)
		if errors.Is(err, errMoved) {
			continue
		}
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
		newest := g.divide(members, all, h)
		if len(h.before) == 0 {
			return detach(m)
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
			if err := g.undo(ctx); err != nil {
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
		h.named = named
		h.lock.steers(newest)
		return nil
	}
	return fmt.Errorf("group: listeners came and went while this one took over: %w", errMoved)
}

// divide finds the listeners to steer to, and those from before that are to go. Whoever
// has begun to listen later is a newcomer that waits for this one; if there are
// only such, they are the ones to be steered away from.
func (g *Group) divide(members int, all []sockdiag.Socket, h *hold) (newest []uint64) {
	var later []uint64
	h.before = nil
	for i, s := range all {
		if !g.newest(i, members, all) {
			later = append(later, s.Cookie)
			continue
		}
		newest = append(newest, s.Cookie)
		h.before = append(h.before, later...)
		later = nil
	}
	if len(h.before) == 0 {
		h.before = later
	}
	return newest
}

var errMoved = errors.New("the members have other numbers")

// peers returns the listeners of the group's address that share with it, its own
// among them, in the order in which they began to listen. One that is being drained
// is out of sight, and has its number until it is closed, but only among those that
// began to listen before it was hidden: whoever comes later begins a group of his own.
// Only a probe can tell whether those belong here, too.
func (g *Group) peers(hidden bool) ([]sockdiag.Socket, error) {
	m := g.first()
	if m == nil {
		return nil, g.closedError("take over")
	}
	at := g.Addr().(*net.TCPAddr).AddrPort()
	family := families(at.Addr())[0]
	all, err := sockdiag.TCP(family, at.Port(), sockdiag.Listen)
	if err != nil {
		return nil, err
	}
	me := slices.IndexFunc(all, func(s sockdiag.Socket) bool { return s.Cookie == m.cookie })
	if me < 0 {
		return nil, fmt.Errorf("group: sock_diag does not show this process's own listener on %v", at)
	}
	mine := all[me]
	if mine.Interface == invisible { // it is about to close, and by it the others look like strangers
		return nil, errMoved
	}
	all = slices.DeleteFunc(all, func(s sockdiag.Socket) bool {
		device := s.Interface == mine.Interface || hidden && s.Interface == invisible
		return s.Local != mine.Local || s.V6Only != mine.V6Only || !device || s.UID != mine.UID
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
		m, err := g.probe(ctx, uint32(i), byHash(), ownTime)
		if err != nil {
			return nil, nil, err
		}
		inOrder = m != nil && m.cookie == s.Cookie
	}
	switch {
	case inOrder:
		return named, own, nil
	case members > len(g.own()):
		return nil, nil, errors.New("group: a listener has left since this generation began to listen, and the numbers of its other processes cannot be known: let it listen again")
	}
	own = nil
	found, err := g.arrangement(ctx, len(all), byHash(), nil)
	if err != nil {
		return nil, nil, err
	}
	for i, m := range found {
		if m != nil {
			own = append(own, uint32(i))
		}
	}
	if len(own) != len(g.own()) {
		return nil, nil, errMoved
	}
	return own, own, nil
}

// maxSilent is how many strangers may not answer a probe: each takes otherTime.
const maxSilent = 4

// arrangement asks for the members with the numbers 0 to n-1, but for those that are
// known; they and strangers are nil.
func (g *Group) arrangement(ctx context.Context, n int, base program, known []uint32) ([]*member, error) {
	found := make([]*member, n)
	noAnswer := 0
	for i := range uint32(n) {
		if slices.Contains(known, i) {
			continue
		}
		m, err := g.probe(ctx, i, base, otherTime)
		if silent(err) && ctx.Err() == nil && noAnswer < maxSilent {
			noAnswer++ // whose queue is full: a member accepts at once
			continue
		}
		if err != nil {
			return nil, err
		}
		if m != nil && slices.Contains(found, m) { // an index is out of range
			return nil, errMoved
		}
		found[i] = m
	}
	return found, nil
}

// verify checks that the group's own listeners are at the indexes where they were.
func (g *Group) verify(ctx context.Context, own []uint32, base program) error {
	seen := map[*member]bool{}
	for _, i := range own {
		m, err := g.probe(ctx, i, base, ownTime)
		if err != nil {
			return err
		}
		if m == nil || m.spare() {
			return errMoved
		}
		seen[m] = true
	}
	if len(seen) != len(g.own()) {
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
	own := g.own()
	for i := range n {
		l, err := lc.Listen(ctx, g.network, g.Addr().String())
		if err != nil {
			return err
		}
		m, err := newMember(l.(*net.TCPListener), own[i%len(own)].to)
		if err != nil {
			l.Close()
			return err
		}
		g.mu.Lock()
		g.members = append(g.members, m)
		g.mu.Unlock()
		m.start()
	}
	return nil
}

// undo ends the steering after TakeOver has failed.
func (g *Group) undo(ctx context.Context) error {
	if len(g.spares()) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.config.Handshake+10*time.Second)
		defer cancel()
		err := g.closeSpares(ctx, nil, true)
		if err != nil && !silent(err) {
			err = g.closeSpares(ctx, nil, false)
		}
		if err != nil {
			// They cannot be told from the others. The newest first: none of the members
			// that stay gets another number then.
			for _, m := range slices.Backward(g.spares()) {
				_ = g.closeMember(m)
			}
		}
	}
	return detach(g.first())
}

// closeMember takes a member out of the group.
func (g *Group) closeMember(m *member) error {
	err := m.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	g.left = slices.DeleteFunc(g.left, func(m *member) bool {
		select {
		case <-m.done:
			return true
		default:
			return false
		}
	})
	g.left = append(g.left, m)
	return err
}

// standIn prepares for a listener to be closed while the steering goes on: its number
// goes to a spare then, and as many remain as there are listeners from before.
func (g *Group) standIn(*listener) {
	if g.hold != nil {
		_ = g.openSpares(g.shut, 1) // if not, there may be one too few
	}
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
			waiting = g.remain(h)
		}
	}
	select {
	case g.turn <- struct{}{}:
		defer g.endTurn()
	case <-ctx.Done():
		return
	}
	named := h.named
	for try := range 6 {
		err := g.closeSpares(ctx, named, try%2 == 0)
		if ctx.Err() != nil {
			return // Drain or Close does the rest
		}
		if err == nil || silent(err) {
			break
		}
		named = nil // somebody changed the group
	}
	// Spares that are left, if that has failed, serve on, which does no harm.
	if err := detach(g.first()); err != nil {
		g.mu.Lock()
		g.failed = fmt.Errorf("group: the steering has not ended: %w", err)
		g.mu.Unlock()
	}
	g.releaseHold()
	if err := g.unpump(); err != nil {
		g.mu.Lock()
		g.failed = err
		g.mu.Unlock()
	}
}

// remain tells whether there still are, or may be, listeners from before.
func (g *Group) remain(h *hold) bool {
	all, err := g.peers(true)
	return err != nil || slices.ContainsFunc(all, func(s sockdiag.Socket) bool {
		return slices.Contains(h.before, s.Cookie)
	})
}

// settled tells whether nothing is to be undone later.
func (g *Group) settled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hold == nil
}

// closeSpares closes the spares. named are the indexes of members that new connections
// may go to, if they are known; if not, they are found out, and meanwhile any may get
// some. Before each close there is a program that names none of the spares, and not
// the member that the close moves.
func (g *Group) closeSpares(ctx context.Context, named []uint32, hidden bool) error {
	m := g.first()
	if len(g.spares()) == 0 {
		return nil
	}
	members, err := g.cookies(hidden)
	if err != nil {
		return err
	}
	exposed := named == nil // spares may have handshakes under way
	base, err := choose(named)
	if err != nil {
		return err
	}
	found, err := g.arrangement(ctx, len(members), base, named)
	if err != nil {
		return err
	}
	for i, m := range found {
		switch {
		case m == nil || m.spare():
		case exposed:
			named = append(named, uint32(i))
		default: // named are not what they were
			return errMoved
		}
	}
	for {
		spares := g.spares()
		if len(spares) == 0 {
			return nil
		}
		// Who comes or goes changes the numbers.
		now, err := g.cookies(hidden)
		if err != nil {
			return err
		}
		if !slices.Equal(members, now) {
			return errMoved
		}
		last := uint32(len(found) - 1)
		leaves := last
		if found[last] == nil || !found[last].spare() {
			leaves = uint32(slices.IndexFunc(found, func(m *member) bool { return m != nil && m.spare() }))
		}
		if int(leaves) >= len(found) || len(named) == 0 {
			return errMoved
		}
		spare := found[leaves]
		moves := leaves != last && slices.Contains(named, last)
		stay := slices.DeleteFunc(slices.Clone(named), func(i uint32) bool { return i == last })
		if len(stay) == 0 {
			// The only one is about to move. Until then its number is right; then
			// that is out of range, and for a moment any may get a connection.
			stay = named
			exposed = exposed || len(spares) > 1
		}
		p, err := choose(stay)
		if err != nil {
			return err
		}
		if err := attach(m, p); err != nil {
			return err
		}
		if exposed {
			if _, err := handshakes(ctx, spare.l, g.patience(spare.l)); err != nil {
				return err
			}
			exposed = len(stay) == len(named) && len(stay) == 1 && moves
		}
		if err := g.emptyQueue(ctx, spare); err != nil {
			return err
		}
		if m == spare { // not with a listener left
			return errMoved
		}
		if err := g.closeMember(spare); err != nil {
			return err
		}
		members = slices.DeleteFunc(members, func(c uint64) bool { return c == spare.cookie })
		found[leaves] = found[last]
		found = found[:last]
		if moves {
			named[slices.Index(named, last)] = leaves
		}
		if p, err = choose(named); err != nil {
			return err
		}
		if err := attach(m, p); err != nil {
			return err
		}
	}
}

// cookies returns those of all listeners that share the address.
func (g *Group) cookies(hidden bool) ([]uint64, error) {
	all, err := g.peers(hidden)
	if err != nil {
		return nil, err
	}
	cookies := make([]uint64, len(all))
	for i, s := range all {
		cookies[i] = s.Cookie
	}
	return cookies, nil
}

// emptyQueue accepts what a spare has in its queue, without waiting for the user.
func (g *Group) emptyQueue(ctx context.Context, m *member) error {
	g.probes.begin()
	defer g.probes.end()
	return empty(ctx, func() (bool, uint64, error) {
		n, err := queued(m.l)
		return n == 0, m.accepts.Load(), err
	})
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
	held, err := g.hold != nil, g.failed
	g.mu.Unlock()
	if m := g.first(); m != nil && (held || err != nil) {
		return detach(m)
	}
	return err
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
