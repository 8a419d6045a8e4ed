//go:build unix

package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// This process as the current one, which newcomers connect to.

const (
	maxLinks     = 16 // at a time
	helloTimeout = 5 * time.Second
	waitInterval = 3 * time.Second // in which a process that waits hears again
)

// serveRendezvous answers the processes that connect, from now on.
func (p *Process) serveRendezvous() {
	r := p.rendezvous
	// The kernel tells a process that connects who called listen last (Linux 6.18).
	_ = control(r.listener, func(fd int) error { return unix.Listen(fd, unix.SOMAXCONN) })
	r.keepSpare()
	p.goroutines.Go(func() {
		for {
			conn, err := r.listener.AcceptUnix()
			switch {
			case err == nil:
				p.goroutines.Go(func() { p.serve(&link{conn: conn, sent: make(chan struct{})}, r) })
			case errors.Is(err, net.ErrClosed):
				return
			default: // no descriptor is free
				spare := false
				ended := p.do(func() { spare, r.spare = r.spare.Close() == nil, nil })
				if ended != nil || !spare && !pause(p.ended, 10*time.Millisecond) {
					return
				}
			}
		}
	})
}

// serve answers one process until it has gone, or has succeeded this one.
func (p *Process) serve(l *link, r *rendezvous) {
	defer p.leave(l)
	var err error
	if l.who, err = r.place.check(l.conn); err != nil {
		return
	}
	if p.do(func() { p.enter(l) }) != nil {
		return
	}
	// Plain reads, so that the kernel drops descriptors that are sent here.
	if l.conn.SetReadDeadline(time.Now().Add(helloTimeout)) != nil {
		return
	}
	hello, err := readMessage(l.conn)
	if err != nil || hello.Type != typeHello || l.conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	l.who.correct(hello.PID)
	next := make(chan message, 1) // one more, or closed
	p.goroutines.Go(func() {
		defer close(next)
		if m, err := readMessage(l.conn); err == nil {
			next <- m
		}
	})
	var answer message
	var attached bool
	var changed chan struct{}
	for p.do(func() { answer, attached = p.admit(l, hello); changed = p.changed }) == nil && !attached {
		if l.send(answer) != nil {
			return
		}
		select {
		case <-changed:
		case <-time.After(waitInterval):
		case <-next:
			return
		case <-p.ended:
		}
	}
	if !attached {
		return
	}
	err = p.transfer(l)
	close(l.sent)
	committed := false
	if m, ok := <-next; ok && err == nil && m.Type == typeReady {
		if p.do(func() { committed = p.commit(l, m.Keep) }) != nil || committed {
			return
		}
	}
	// As long as this process runs, the newcomer is the one that ends the
	// connection: for it, the end means that this process has ended.
	_, _ = io.Copy(io.Discard, l.conn)
	_ = p.do(func() { p.detach(l) })
}

// enter counts a link. If there are too many, the oldest one that has not said hello
// makes room, or else this one, which will try again.
func (p *Process) enter(l *link) {
	p.links = append(p.links, l)
	if len(p.links) > maxLinks {
		i := slices.IndexFunc(p.links, func(l *link) bool { return l.process == "" })
		p.links[i].conn.Close()
		p.links = slices.Delete(p.links, i, i+1)
	}
}

func (p *Process) leave(l *link) {
	l.conn.Close()
	_ = p.do(func() {
		p.links = slices.DeleteFunc(p.links, func(other *link) bool { return other == l })
		p.rendezvous.keepSpare()
	})
}

// admit attaches a newcomer, or returns what it has to wait for.
func (p *Process) admit(l *link, hello message) (answer message, attached bool) {
	l.process = hello.Process
	switch {
	case p.leaving:
		return message{Type: typeEnding, PID: os.Getpid()}, false
	case !p.current:
		return message{Type: typeWait, PID: os.Getpid()}, false
	case p.newcomer != nil && p.newcomer[0].process != hello.Process:
		return message{Type: typeWait, PID: p.newcomer[0].who.pid}, false
	}
	// A link that is there already was given up by a Ready. The newcomer has the
	// sockets until it has closed them all.
	p.newcomer = append(p.newcomer, l)
	l.gave = slices.Clone(p.sockets)
	return message{}, true
}

// detach forgets a newcomer that has broken off. It may have made the sockets
// blocking, for all who hold them.
func (p *Process) detach(l *link) {
	p.newcomer = slices.DeleteFunc(p.newcomer, func(other *link) bool { return other == l })
	if len(p.newcomer) > 0 {
		return
	}
	p.newcomer = nil
	for _, s := range p.sockets {
		s.setNonblock()
	}
	p.change()
}

// transfer sends everything to a newcomer.
func (p *Process) transfer(l *link) error {
	var r *rendezvous
	if err := p.do(func() { r = p.rendezvous }); err != nil {
		return err
	}
	if err := l.send(hello(p.id, r.listener)); err != nil {
		return err
	}
	if err := l.sendDescriptor(message{Type: typeRendezvous}, r.listener); err != nil {
		return err
	}
	if r.lock != nil {
		if err := l.sendDescriptor(message{Type: typeLock}, r.lock); err != nil {
			return err
		}
	}
	for _, s := range l.gave {
		m := message{Type: typeSocket, ID: s.id, Network: s.network, Address: s.address, Files: s.parent}
		if err := l.sendDescriptor(m, s); err != nil && !errors.Is(err, net.ErrClosed) { // by the caller
			return err
		}
	}
	return l.send(message{Type: typeEnd})
}

// commit makes the newcomer current, unless that has gone. Before the message is sent
// nothing has changed; once it is sent there is no way back.
func (p *Process) commit(l *link, keep []int) bool {
	if p.leaving || !l.open() {
		return false
	}
	var kept, rest []*socket
	for _, s := range p.sockets {
		if slices.Contains(keep, s.id) {
			kept = append(kept, s)
			s.unlinkOnClose(false)
			s.setNonblock()
		} else {
			rest = append(rest, s)
		}
	}
	if l.send(message{Type: typeGoing}) != nil {
		for _, s := range kept {
			s.unlinkOnClose(true)
		}
		return false
	}
	p.leaving, p.succeeded = true, true
	closeListeners(kept)
	p.rendezvous.close(false)
	_ = l.send(message{Type: typeStopped}) // or it sees the end of the connection
	p.change()
	hidden, err := hideSockets(rest, func(s *socket) bool { return s.parent })
	p.goroutines.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = awaitEmpty(ctx, hidden, err) // no caller waits for the error
		_ = p.do(func() { p.over = true })
	})
	return true
}
