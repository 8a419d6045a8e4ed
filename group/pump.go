//go:build darwin || freebsd || linux || netbsd || openbsd

package group

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// Users accept on the sockets themselves, which costs nothing. While the group takes
// over or drains, goroutines accept instead: on spares, too, whose connections go to
// the same users; without the group's own probes; and so that accepts are counted.
// Whoever begins or ends that has the group's turn.

// pumping is what a group keeps of that.
type pumping struct {
	direct chan struct{} // closed when users accept on the sockets again; nil while they do
	probes probes
}

// pump lets goroutines accept on the group's sockets.
func (g *Group) pump() error {
	if g.direct != nil {
		return nil // already
	}
	g.direct = make(chan struct{})
	var errs []error
	for _, l := range g.listeners {
		errs = append(errs, l.pump())
	}
	return errors.Join(errs...)
}

func (l *listener) pump() error {
	err := l.kick()
	l.mode.Lock()
	defer l.mode.Unlock()
	err = errors.Join(err, l.endKick())
	if isClosed(err) {
		return nil
	}
	l.pumped = true
	l.member.start()
	return err
}

// unpump has users accept on the sockets again, if there are no spares.
func (g *Group) unpump() error {
	if g.direct == nil || slices.ContainsFunc(g.allMembers(), func(m *member) bool { return m.spare() }) {
		return nil
	}
	for _, l := range g.listeners {
		l.mode.Lock()
	}
	close(g.direct)
	g.direct = nil
	for _, m := range g.takeLeft() {
		<-m.done
	}
	var errs []error
	for _, l := range g.listeners {
		errs = append(errs, l.unpump())
		l.mode.Unlock()
	}
	g.probes.forget()
	return errors.Join(errs...)
}

// takeLeft returns the spares that are closed and may have a connection in hand.
func (g *Group) takeLeft() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := g.left
	g.left = nil
	return left
}

func (l *listener) unpump() error {
	l.pumped = false
	err := l.kick()
	<-l.member.done
	if err = errors.Join(err, l.endKick()); isClosed(err) {
		return nil
	}
	return err
}

// kick has whoever accepts on the socket let go, and nobody else begin.
func (l *listener) kick() error {
	l.deadline.Lock()
	defer l.deadline.Unlock()
	l.kicked = true
	return l.member.l.SetDeadline(past)
}

func (l *listener) endKick() error {
	l.deadline.Lock()
	defer l.deadline.Unlock()
	l.kicked = false
	return l.member.l.SetDeadline(time.Time{})
}

// spare tells whether a member is no listener's own, but stands in while the group
// takes over.
func (m *member) spare() bool { return m.to.member != m }

// start begins to accept on a member.
func (m *member) start() {
	m.direct = m.to.g.direct
	m.done = make(chan struct{})
	go m.run(&m.to.g.probes)
}

// run passes on what the socket accepts, but for the group's own probes. It accepts
// at most one connection ahead of the user, but while the group connects to itself,
// it must not keep those connections waiting behind others. It ends when the socket
// is closed and what it has accepted is the user's, or is kept for him.
func (m *member) run(probes *probes) {
	defer close(m.done)
	var ahead sync.WaitGroup
	defer ahead.Wait()
	for k, ok := m.to.popKept(); ok; k, ok = m.to.popKept() { // the user may not come for it
		k.from.held.Add(-1)
		m.held.Add(1)
		ahead.Go(func() { m.deliver(k.conn) })
	}
	for {
		conn, err := m.l.AcceptTCP()
		switch {
		case isClosed(err):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case <-m.direct:
				return
			default: // meant for users who accepted here before
				_ = m.to.clearDeadline()
			}
		case err != nil: // too many open files, say: the user decides
			if !m.pass(result{err: err}) { // who has gone
				time.Sleep(5 * time.Millisecond)
			}
		default:
			m.held.Add(1)
			m.accepts.Add(1)
			if probes.swallow(conn, m) {
				m.held.Add(-1)
				continue
			}
			select {
			case m.to.accepted <- result{conn: conn}:
				m.held.Add(-1)
			case m.to.g.stalled <- result{conn: conn}:
				m.held.Add(-1)
			case <-probes.begun():
				ahead.Go(func() { m.deliver(conn) })
			case <-m.direct:
				m.deliver(conn)
			case <-m.to.ended:
				m.deliver(conn)
			}
		}
	}
}

// deliver waits until the user takes a connection.
func (m *member) deliver(conn net.Conn) {
	if m.pass(result{conn: conn}) {
		m.held.Add(-1)
	}
}

// pass waits until the user accepts. What a spare has goes to another listener if
// its own is closed. It returns false if the user does not get it, or not yet.
func (m *member) pass(r result) bool {
	to := m.to
	for to != nil {
		select {
		case to.accepted <- r:
			return true
		case to.g.stalled <- r:
			return true
		case <-m.direct:
			if r.conn == nil {
				return true // he will see the error himself
			}
			to.keep(kept{r.conn, m})
			return false
		case <-to.ended:
		}
		if !m.spare() {
			break
		}
		to = m.to.g.openListener()
	}
	if r.conn != nil {
		m.abandon(r.conn)
	}
	return false
}
