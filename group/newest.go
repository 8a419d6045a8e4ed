//go:build darwin || freebsd || netbsd || openbsd

package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// Here the listener that was bound last gets every new connection, so whoever
// listens has taken over, and nothing is to be undone later. TakeOver makes sure
// of it with a connection to itself, and leaves a claim, so that the process from
// before need not try where a connection goes: that would be one more for the
// successor's Accept.
//
// Who gets the connections was measured on FreeBSD 14.0 and NetBSD 7.99, and read
// in the source of OpenBSD 7.8 (in_pcbhash_lookup) and of macOS
// (in_pcblookup_hash_locked, xnu-11417.101.15).

// steered is what a group keeps of its TakeOver.
type steered struct {
	pumping
	order   uint64 // of the groups of this user: a later one has a greater number
	noOrder error  // why there is none
	claim   *os.File
}

// lockAddress keeps others of this user from opening a group at the same time, so
// that the groups' order is that in which they are bound. A group without a place
// in it can serve, but not take over.
func (g *Group) lockAddress(ctx context.Context, _ *net.TCPAddr) (*lock, error) {
	if !wanted(g.config.Socket.Port) {
		return nil, nil
	}
	l, err := lockOrder(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("group: waited for another process that opens a group: %w", err)
	}
	if err != nil {
		g.noOrder = err
		return nil, nil
	}
	g.order = l.order
	return l, nil
}

// steerHere makes sure that new connections come to this group.
func (g *Group) steerHere(ctx context.Context, _ int) error {
	m := g.first()
	if m == nil {
		return g.closedError("take over")
	}
	if err := newestGets(m.l); err != nil {
		return err
	}
	if g.order == 0 {
		return fmt.Errorf("group: no place in the order of groups: %w", g.noOrder)
	}
	if err := g.probe(ctx); err != nil {
		return err
	}
	if isThere(g.claim) {
		return nil
	}
	claim, err := newClaim(ctx, g.key(), g.order)
	if err != nil {
		return err
	}
	g.mu.Lock()
	old := g.claim
	g.claim = claim
	g.mu.Unlock()
	if old != nil {
		old.Close() // somebody had removed it
	}
	return nil
}

// newestGets returns nil if the kernel gives new connections to the listener that
// was bound last among those that share the address of l.
func newestGets(l *net.TCPListener) error {
	options, err := reuse.Inspect(l)
	if err != nil {
		return err
	}
	wildcard := l.Addr().(*net.TCPAddr).IP.IsUnspecified()
	switch {
	case options.PortLB == reuse.On:
		return unsupported("SO_REUSEPORT_LB spreads new connections over old and new listeners; set Port instead")
	case options.Port != reuse.On:
		return unsupported("the listener does not share its address; set Port")
	case wildcard && oldestGets():
		return unsupported("of listeners on a wildcard address the one bound first gets new connections; listen on a specific one")
	}
	return nil
}

func unsupported(why string) error {
	return fmt.Errorf("group: %w on %s: %s", errors.ErrUnsupported, runtime.GOOS, why)
}

// oldestGets tells whether it is the other way round on wildcard addresses: macOS,
// and FreeBSD before 14 (in_pcblookup_hash_locked at a0577692).
func oldestGets() bool {
	if runtime.GOOS == "freebsd" {
		return release() < 14
	}
	return runtime.GOOS == "darwin"
}

// release is the kernel's major version, 0 if that cannot be read.
func release() (major int) {
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		_, _ = fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.", &major)
	}
	return major
}

// probe connects to the group's address and returns nil if the group got that.
func (g *Group) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	g.probes.begin()
	defer g.probes.end()
	got := make(chan *member, 1)
	var from netip.AddrPort
	at := g.target()
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if from, err = bindTo(int(fd), at.Addr()); err == nil {
				g.probes.add(from, got)
			}
		})
		return errors.Join(cerr, err)
	}}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		if ctx.Err() == nil {
			g.probes.remove(from)
		} // else it may be in a queue nevertheless, and is still to be swallowed
		return fmt.Errorf("group: a probe did not connect: %w", err)
	}
	defer g.probes.remove(from)
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	_, _ = conn.Write([]byte{0}) // an accept filter may wait for it; fails if it has been swallowed
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("group: %w: a connection to %v came to another listener: one that was bound later, or has a more specific address", errNotSteered, at)
	}
}

// succeeded returns nil if a successor has taken over from this group.
func (g *Group) succeeded(_ context.Context, members []*member) error {
	if err := newestGets(members[0].l); err != nil {
		return err
	}
	if g.order == 0 {
		return fmt.Errorf("no place in the order of groups: %w", g.noOrder)
	}
	return claimed(g.key(), g.order)
}

// listenerSucceeded is succeeded for a plain listener, whose age cannot be known:
// any group that has taken over counts as its successor.
func listenerSucceeded(_ context.Context, l *net.TCPListener) error {
	if err := newestGets(l); err != nil {
		return err
	}
	return claimed(listenerKey(l), 0)
}

// detachHold gives up the claim: the group is about to go.
func (g *Group) detachHold() error {
	g.mu.Lock()
	claim := g.claim
	g.claim = nil
	g.mu.Unlock()
	return endClaim(claim)
}

// handshakes waits for those under way, which nothing shows here. On FreeBSD they
// belong to no listener and finish at the newest (from memory of tcp_syncache.c, not
// measured with a slow network). The
// others drop them with the listener that has received the SYN (source,
// syn_cache_cleanup): they need time.
func handshakes(ctx context.Context, _ *net.TCPListener, patience time.Duration) (int, error) {
	if runtime.GOOS == "freebsd" {
		patience = settled
	}
	return 0, pause(ctx, patience)
}

// queued tells how many connections a listener has not accepted yet: kqueue counts
// them, on each of these systems. It needs a descriptor; without one it is 1 at least.
func queued(l *net.TCPListener) (n int, err error) {
	if some, err := readable(l); err != nil || !some {
		return 0, err
	}
	kq, err := unix.Kqueue()
	if err != nil {
		return 1, nil
	}
	defer unix.Close(kq)
	err = onSocket(l, func(fd int) error {
		change, event := make([]unix.Kevent_t, 1), make([]unix.Kevent_t, 1)
		unix.SetKevent(&change[0], fd, unix.EVFILT_READ, unix.EV_ADD)
		some, err := unix.Kevent(kq, change, event, &unix.Timespec{})
		if err == nil && some > 0 {
			n = int(event[0].Data)
		}
		return os.NewSyscallError("kevent", err)
	})
	return n, err
}

// What Linux needs, and these systems do not or cannot have.

const canBlind = false

func (g *Group) settled() bool                  { return true }
func (g *Group) stopHolding()                   {}
func (g *Group) releaseHold()                   {}
func (g *Group) standIn(*listener)              {}
func detach(*member) error                      { return nil }
func blind(*net.TCPListener) error              { return nil }
func settleQueues()                             {}
func cookieOf(*net.TCPListener) (uint64, error) { return 0, nil }
func deferred(*net.TCPListener) (int, error)    { return 0, nil }
