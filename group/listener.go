package group

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// A listener is what the user of a group accepts from. The connections are those
// of its member, and of spares that stand in for a while.
type listener struct {
	g      *Group
	member *member

	accepted chan result
	ended    chan struct{}
	endOnce  sync.Once
	closed   atomic.Bool // by the user
}

type result struct {
	conn net.Conn
	err  error
}

func newListener(g *Group, l *net.TCPListener) (*listener, error) {
	out := &listener{g: g, accepted: make(chan result), ended: make(chan struct{})}
	var err error
	out.member, err = newMember(l, out)
	return out, err
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case r := <-l.accepted:
		return r.conn, r.err
	case <-l.ended:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

func (l *listener) Addr() net.Addr { return l.member.l.Addr() }

func (l *listener) SyscallConn() (syscall.RawConn, error) { return l.member.l.SyscallConn() }

// Close closes this listener alone.
func (l *listener) Close() error { return l.g.closeListener(l) }

// end makes Accept fail.
func (l *listener) end() { l.endOnce.Do(func() { close(l.ended) }) }

func (l *listener) isEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// closeListener waits until no TakeOver, Drain or Close of the group is under way.
// Accept fails at once: whatever is under way must not wait for it.
func (g *Group) closeListener(l *listener) error {
	if l.closed.Swap(true) {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	first := false
	l.endOnce.Do(func() { close(l.ended); first = true })
	if !first { // by Drain or Close: no error, so that an http.Server's Shutdown has none
		return nil
	}
	if g.openListener() == nil {
		g.close()
		g.stopHolding() // before the turn, which it may have
	}
	g.takeTurn()
	defer g.endTurn()
	if g.openListener() == nil {
		return g.closeAll()
	}
	g.standIn(l)
	g.mu.Lock()
	g.members = slices.DeleteFunc(g.members, func(m *member) bool { return m == l.member })
	g.mu.Unlock()
	err := l.member.close()
	<-l.member.done
	return err
}

// openListener returns a listener that is not closed, nil if there is none.
func (g *Group) openListener() *listener {
	for _, l := range g.listeners {
		if !l.isEnded() {
			return l
		}
	}
	return nil
}

// A member is one of the kernel's sockets, and the goroutine that accepts on it.
// It accepts at most one connection ahead of the user, but while the group connects
// to itself, it must not keep those connections waiting behind others. It ends when
// the socket is closed and what it has accepted is the user's.
type member struct {
	l      *net.TCPListener
	to     *listener
	cookie uint64 // the kernel's name for the socket
	spare  bool   // stands in while the group takes over

	accepts   atomic.Uint64 // connections accepted so far
	abandoned atomic.Uint64 // and not taken by the user
	held      atomic.Int64  // and not yet taken
	done      chan struct{} // closed when the goroutine has ended
}

func newMember(l *net.TCPListener, to *listener) (*member, error) {
	cookie, err := cookieOf(l)
	if err != nil {
		return nil, err
	}
	return &member{l: l, to: to, cookie: cookie, done: make(chan struct{})}, nil
}

// close hides the member from new connections and closes it. Its goroutine may still
// wait for the user.
func (m *member) close() error {
	err := blind(m.l)
	return errors.Join(err, m.l.Close())
}

// isClosed tells whether Accept failed because its socket is closed.
func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// pump passes on what the socket accepts, but for the group's own probes.
func (m *member) pump(probes *probes) {
	defer close(m.done)
	var ahead sync.WaitGroup
	defer ahead.Wait()
	for {
		conn, err := m.l.AcceptTCP()
		switch {
		case isClosed(err):
			return
		case err != nil: // too many open files, say: the user decides
			if !m.pass(result{err: err}) {
				return
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
			case <-probes.begun():
				ahead.Go(func() { m.deliver(conn) })
			case <-m.to.ended:
				m.deliver(conn)
			}
		}
	}
}

// deliver waits until the user takes a connection.
func (m *member) deliver(conn net.Conn) {
	defer m.held.Add(-1)
	if !m.pass(result{conn: conn}) {
		m.abandoned.Add(1)
		conn.Close()
	}
}

// pass waits until the user accepts. What a spare has goes to another listener if
// its own is closed.
func (m *member) pass(r result) bool {
	for to := m.to; to != nil; to = m.to.g.openListener() {
		select {
		case to.accepted <- r:
			return true
		case <-to.ended:
		}
		if !m.spare {
			break
		}
	}
	return false
}
