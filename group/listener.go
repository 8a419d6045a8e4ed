package group

import (
	"errors"
	"net"
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

// closeListener waits until no TakeOver, Drain or Close of the group is under way.
func (g *Group) closeListener(l *listener) error {
	select {
	case <-l.ended: // closed, or drained
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	default:
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	var mine []*member
	others := g.members[:0:0]
	for _, m := range g.members {
		if m.to == l {
			mine = append(mine, m)
		} else {
			others = append(others, m)
		}
	}
	g.members = others
	g.mu.Unlock()
	var err error
	for _, m := range mine {
		if e := m.close(); err == nil {
			err = e
		}
	}
	l.end()
	for _, m := range mine {
		<-m.done
	}
	return err
}

// A member is one of the kernel's sockets, and the goroutine that accepts on it.
// It accepts at most one connection ahead of the user. It ends when the socket is
// closed.
type member struct {
	l      *net.TCPListener
	to     *listener
	cookie uint64 // the kernel's name for the socket
	spare  bool   // stands in while the group takes over

	accepts   atomic.Uint64 // connections accepted so far
	abandoned atomic.Uint64 // and not taken by the user
	holding   atomic.Bool   // one waits for the user
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
	for {
		m.holding.Store(false)
		conn, err := m.l.AcceptTCP()
		if err == nil {
			m.holding.Store(true)
			m.accepts.Add(1)
			if probes.swallow(conn, m) {
				continue
			}
			if m.pass(result{conn: conn}) {
				continue
			}
			m.abandoned.Add(1)
			conn.Close()
			continue // until the socket is closed
		}
		if isClosed(err) {
			return
		}
		if !m.pass(result{err: err}) { // too many open files, say: the user decides
			return
		}
	}
}

// pass waits until the user accepts.
func (m *member) pass(r result) bool {
	select {
	case m.to.accepted <- r:
		return true
	case <-m.to.ended:
		return false
	}
}
