package handover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This process as the newcomer, which is about to succeed another.

// A meeting is what came of looking for the current process. If link is nil, this
// process holds the rendezvous.
type meeting struct {
	link       *link
	rendezvous *rendezvous
	sockets    []*socket
	vanished   bool
}

// join takes over what meet found. It runs before own, or in it.
func (p *Process) join(m *meeting) {
	p.rendezvous = m.rendezvous
	p.vanished = p.vanished || m.vanished
	p.passed = append(p.passed, m.sockets...)
	if m.link == nil {
		p.serveRendezvous()
		return
	}
	if p.previous == nil {
		p.predecessor = m.link.who.pid
	}
	p.previous = m.link
	p.goroutines.Go(func() { p.follow(m.link) })
}

// follow reads what the previous process sends until that has stopped or died.
func (p *Process) follow(l *link) {
	for agreed := false; ; {
		m, err := readMessage(l.conn)
		agreed = agreed || m.Type == typeGoing
		if err != nil || m.Type == typeStopped {
			_ = p.do(func() { p.previousEnded(l, agreed) })
			close(l.over)
			return
		}
	}
}

// previousEnded makes the rendezvous this process's own. The end of a link that was
// given up tells nothing, unless the previous process had agreed.
func (p *Process) previousEnded(l *link, agreed bool) {
	if p.previous != l || l.gaveUp && !agreed {
		return
	}
	l.conn.Close()
	p.previous = nil
	p.vanished = !agreed
	p.serveRendezvous()
	if l.sentReady {
		p.becomeCurrent()
	}
}

func (p *Process) becomeCurrent() {
	p.current = true
	for _, s := range p.sockets {
		p.number(s)
		if s.borrowed {
			s.unlinkOnClose(true)
		}
	}
	p.change()
}

func (p *Process) ready(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		// A Ready under way whose ctx has ended as well returns soon, and counts for this one.
		select {
		case p.turn <- struct{}{}:
		case <-time.After(time.Second):
			return ctx.Err()
		}
	}
	defer func() { <-p.turn }()
	if p.wasReady() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var again bool
	err := p.do(func() { again = p.previous != nil && p.previous.gaveUp })
	if err == nil && again {
		err = p.meetAgain(ctx)
	}
	if err != nil {
		return err
	}
	var l *link
	if ended := p.doUnlessLeaving(func() { l, err = p.sendReady() }); ended != nil || err != nil || l == nil {
		return errors.Join(ended, err)
	}
	select {
	case <-l.over:
	case <-ctx.Done():
		if p.do(func() { l.gaveUp = true }) == nil {
			l.giveUp()
		}
		<-l.over
	}
	ended := p.do(func() {
		if !p.current {
			// If the previous process dies now, another can take its place: see meetAgain.
			p.rendezvous.close(false)
			p.rendezvous = nil
		}
	})
	switch {
	case p.wasReady():
		return nil
	case ended != nil:
		return ended
	}
	return waited(l.who, ctx.Err())
}

// wasReady tells whether a Ready has succeeded, also after what this led to.
func (p *Process) wasReady() (yes bool) {
	if p.do(func() { yes = p.current }) != nil {
		return p.current && p.leaving // own has ended
	}
	return yes
}

// sendReady returns the link to wait on, or nil if this process is current.
func (p *Process) sendReady() (*link, error) {
	l := p.previous
	if l == nil {
		if !p.current {
			p.becomeCurrent()
		}
		closeSockets(p.passed)
		p.passed = nil
		return nil, nil
	}
	var keep []int
	var mine []string
	for _, s := range p.sockets {
		if s.closed() { // by the caller: the previous process must not rely on it
			continue
		}
		mine = append(mine, s.String())
		if s.borrowed {
			keep = append(keep, s.id)
		}
	}
	if len(keep) == 0 && len(l.sockets) > 0 {
		if len(mine) == 0 {
			mine = []string{"nothing"}
		}
		return nil, fmt.Errorf("%v has other sockets (%s) than this process (%s): is it another service with the same Name?",
			l.who, strings.Join(l.sockets, ", "), strings.Join(mine, ", "))
	}
	closeSockets(p.passed)
	p.passed = nil
	l.sentReady = true
	_ = l.send(message{Type: typeReady, Keep: keep}) // or follow sees the end of the connection
	return l, nil
}

// meetAgain connects to the previous process once more, after a Ready that was given
// up. If it has died, this process takes its place.
func (p *Process) meetAgain(ctx context.Context) error {
	m, err := p.config.meet(ctx, p.id)
	if err != nil {
		return err
	}
	var other error
	if err := p.do(func() {
		old := p.previous
		if m.link != nil && m.link.process != old.process {
			other = fmt.Errorf("%v has succeeded %v while this process waited", m.link.who, old.who)
			return
		}
		m.sockets = slices.DeleteFunc(m.sockets, func(s *socket) bool {
			known := slices.ContainsFunc(p.sockets, func(have *socket) bool { return have.borrowed && have.id == s.id })
			if known {
				s.Close()
			}
			return known
		})
		old.conn.Close()
		if m.link == nil {
			p.previous = nil
		}
		p.join(m)
	}); err != nil || other != nil {
		closeSockets(m.sockets)
		m.rendezvous.close(m.link == nil)
		if m.link != nil {
			m.link.conn.Close()
		}
		return errors.Join(err, other)
	}
	return nil
}

// waited is the error for a wait that has ended early.
func waited(who peer, err error) error {
	if who.uid >= 0 { // what another process tells may be of another pid namespace
		who.state = stateOf(who.pid)
	}
	return fmt.Errorf("waited for %v: %w", who, err)
}
