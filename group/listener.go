package group

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A listener is what the user of a group accepts from: the group's socket itself, or,
// while the group takes over or drains, the goroutines that accept on its sockets,
// the spares' too.
type listener struct {
	g      *Group
	member *member

	mode     sync.RWMutex // held for reading by who accepts on the socket
	pumped   bool         // goroutines accept
	accepted chan result  // from them

	deadline sync.Mutex // orders changes of the socket's deadline
	kicked   bool       // it is to stay until nobody accepts on the socket
	hurried  bool       // it is to stay until rescue has accepted, or not

	waiting atomic.Int32  // calls of Accept
	taken   atomic.Uint64 // connections that they returned

	mu   sync.Mutex
	kept []kept // for the next call

	ended   chan struct{}
	endOnce sync.Once
	closed  atomic.Bool // by the user
}

type result struct {
	conn net.Conn
	err  error
}

// A kept connection is accepted and not yet the user's.
type kept struct {
	conn net.Conn
	from *member
}

func newListener(g *Group, l *net.TCPListener) (*listener, error) {
	out := &listener{g: g, accepted: make(chan result), ended: make(chan struct{})}
	var err error
	out.member, err = newMember(l, out)
	return out, err
}

func (l *listener) Accept() (net.Conn, error) {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	conn, err := l.accept()
	if err == nil {
		l.taken.Add(1)
	}
	return conn, err
}

func (l *listener) accept() (net.Conn, error) {
	for {
		l.mode.RLock()
		pumped, direct := l.pumped, l.member.direct
		conn, err := l.takeKept(), error(nil)
		if conn == nil && !pumped && !l.isEnded() {
			if conn, err = l.member.l.Accept(); err == nil {
				l.member.accepts.Add(1)
			}
		}
		l.mode.RUnlock()
		switch {
		case conn != nil:
			return conn, nil
		case l.isEnded():
			return nil, l.closedError("accept")
		case pumped:
			select {
			case r := <-l.accepted:
				return r.conn, r.err
			case r := <-l.g.stalled:
				return r.conn, r.err
			case <-l.ended:
			case <-direct:
			}
		case errors.Is(err, os.ErrDeadlineExceeded): // something has changed
			if err := l.clearDeadline(); err != nil && !isClosed(err) {
				return nil, err
			}
			runtime.Gosched() // to who has the deadline, if it must stay
		case isClosed(err):
			return nil, l.closedError("accept")
		default:
			return nil, err
		}
	}
}

// clearDeadline has the socket accept again, unless nobody is to, or something is
// kept: whoever is about to accept on the socket is to look there first.
func (l *listener) clearDeadline() error {
	l.deadline.Lock()
	defer l.deadline.Unlock()
	if l.kicked || l.hurried || l.hasKept() {
		return nil
	}
	return l.member.l.SetDeadline(time.Time{})
}

func (l *listener) hasKept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.kept) > 0
}

// takeKept returns a connection that was kept, nil if there is none.
func (l *listener) takeKept() net.Conn {
	k, ok := l.popKept()
	if !ok {
		return nil
	}
	k.from.held.Add(-1)
	return k.conn
}

func (l *listener) popKept() (k kept, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == 0 {
		return k, false
	}
	k, l.kept = l.kept[0], l.kept[1:]
	return k, true
}

// passKept gives what is kept to another listener, as this one has ended, or closes
// what is its own.
func (l *listener) passKept() {
	for k, ok := l.popKept(); ok; k, ok = l.popKept() {
		to := l.g.openListener()
		if to == nil || k.from == l.member {
			k.from.abandon(k.conn)
			continue
		}
		to.mu.Lock()
		to.kept = append(to.kept, k)
		to.mu.Unlock()
		to.wake()
		if to.isEnded() { // meanwhile
			to.passKept()
		}
	}
}

var past = time.Unix(1, 0) // a deadline

// wake has those who wait on the socket look for what is kept. They clear the
// deadline.
func (l *listener) wake() {
	l.deadline.Lock()
	defer l.deadline.Unlock()
	_ = l.member.l.SetDeadline(past) // fails only if it is closed, and all are awake
}

// abandonKept closes what is kept: nobody will accept it.
func (l *listener) abandonKept() {
	for {
		l.mu.Lock()
		list := l.kept
		l.kept = nil
		l.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, k := range list {
			k.from.abandon(k.conn)
		}
	}
}

func (l *listener) closedError(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
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
		return l.closedError("close")
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
	l.passKept()
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

// A member is one of the kernel's sockets: a listener's own, or a spare.
type member struct {
	l      *net.TCPListener
	to     *listener
	cookie uint64 // the kernel's name for the socket

	accepts   atomic.Uint64 // connections accepted so far
	abandoned atomic.Uint64 // and not taken by the user
	held      atomic.Int64  // and not yet taken

	direct <-chan struct{} // closed when the goroutine is to end: users accept on the sockets again
	done   chan struct{}   // closed when it has ended, or did not begin
}

func newMember(l *net.TCPListener, to *listener) (*member, error) {
	cookie, err := cookieOf(l)
	if err != nil {
		return nil, err
	}
	m := &member{l: l, to: to, cookie: cookie, done: make(chan struct{})}
	close(m.done)
	return m, nil
}

// close hides the member from new connections and closes it. Its goroutine may still
// wait for the user.
func (m *member) close() error {
	err := blind(m.l)
	return errors.Join(err, m.l.Close())
}

// abandon closes a connection that the user does not get.
func (m *member) abandon(conn net.Conn) {
	m.abandoned.Add(1)
	m.held.Add(-1)
	conn.Close()
}

// isClosed tells whether Accept failed because its socket is closed.
func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
