//go:build unix

package group

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const canRescue = true

// stall is how often rescue looks: who has connections in his queue twice running,
// and took none meanwhile, does not accept.
const stall = 10 * time.Millisecond

// most is how many connections of one listener are given away before the next one's
// turn.
const most = 1000

// rescue gives what waits for a listener that does not accept to others that do,
// until the group is drained or closed. While goroutines accept on the sockets they
// do so themselves.
func (g *Group) rescue() {
	defer close(g.rescued)
	tick := time.NewTicker(stall)
	defer tick.Stop()
	waited := make([]bool, len(g.listeners))
	taken := make([]uint64, len(g.listeners))
	for next := 0; ; {
		select {
		case <-g.shut.Done():
			return
		case <-tick.C:
		}
		for i, l := range g.listeners {
			again := waited[i] && taken[i] == l.taken.Load()
			waited[i], taken[i] = l.hasWaiting(), l.taken.Load()
			for n := 0; n < most && again && waited[i] && g.shut.Err() == nil; n++ {
				to := g.idle(l, &next)
				if to == nil {
					break // all are busy, and may be free at the next tick
				}
				k, ok := l.take()
				if !ok {
					break
				}
				l.give(k, to)
			}
		}
	}
}

// idle returns a listener other than l on which somebody waits, each in its turn.
func (g *Group) idle(l *listener, next *int) *listener {
	for range g.listeners {
		to := g.listeners[*next]
		*next = (*next + 1) % len(g.listeners)
		if to != l && to.waiting.Load() > 0 && !to.isEnded() {
			return to
		}
	}
	return nil
}

// hasWaiting tells whether there are connections for Accept to return.
func (l *listener) hasWaiting() bool {
	if l.hasKept() {
		return true
	}
	yes, err := readable(l.member.l)
	return yes && err == nil
}

// take takes a connection in place of the user. Should he be faster, Accept is given
// up after an instant.
func (l *listener) take() (kept, bool) {
	l.mode.RLock()
	defer l.mode.RUnlock()
	if k, ok := l.popKept(); ok {
		return k, true
	}
	if yes, err := readable(l.member.l); !yes || err != nil || l.pumped || l.isEnded() || !l.hurry() {
		return kept{}, false
	}
	conn, err := l.member.l.Accept()
	l.deadline.Lock()
	l.hurried = false
	l.deadline.Unlock()
	_ = l.clearDeadline() // fails only if the socket is closed
	if err != nil {
		return kept{}, false
	}
	l.member.held.Add(1)
	return kept{conn, l.member}, true
}

// hurry gives Accept an instant, unless nobody is to accept on the socket.
func (l *listener) hurry() bool {
	l.deadline.Lock()
	defer l.deadline.Unlock()
	l.hurried = !l.kicked && l.member.l.SetDeadline(time.Now().Add(time.Millisecond)) == nil
	return l.hurried
}

// give gives what l cannot use to another. While goroutines accept, anybody may have
// it, as what they accept.
func (l *listener) give(k kept, to *listener) {
	for {
		to.mode.RLock()
		pumped, direct := to.pumped, to.member.direct
		if !pumped {
			to.keep(k)
			to.wake()
		}
		to.mode.RUnlock()
		if !pumped {
			return
		}
		select {
		case l.g.stalled <- result{conn: k.conn}:
			k.from.held.Add(-1)
			return
		case <-direct:
		case <-l.ended:
			k.from.abandon(k.conn)
			return
		}
	}
}

// keep leaves a connection to the next call of Accept.
func (l *listener) keep(k kept) {
	l.mu.Lock()
	l.kept = append(l.kept, k)
	l.mu.Unlock()
	if l.isEnded() { // and nobody looks any more
		l.passKept()
	}
}

// readable tells whether a listener has connections in its queue.
func readable(l *net.TCPListener) (yes bool, err error) {
	err = onSocket(l, func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(fds, 0)
		}
		yes = n > 0
		return os.NewSyscallError("poll", err)
	})
	return yes, err
}

// onSocket calls f with a listener's descriptor.
func onSocket(l *net.TCPListener, f func(fd int) error) error {
	rc, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
