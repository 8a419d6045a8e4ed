package group

import (
	"context"
	"net"
)

// LockName is the name of the lock of a group's address.
func LockName(g *Group) string { return lockName(g.key()) }

// Settled waits until TakeOver has nothing left to undo.
func Settled(ctx context.Context, g *Group) error {
	g.mu.Lock()
	h := g.hold
	g.mu.Unlock()
	if h == nil {
		return nil
	}
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Remain tells whether a group sees listeners from before its TakeOver.
func Remain(g *Group) bool {
	g.mu.Lock()
	h := g.hold
	g.mu.Unlock()
	return h != nil && g.remain(h)
}

// Spares counts the spares of a group.
func Spares(g *Group) int { return len(g.spares()) }

// Steer sends all new connections to the member with a number.
func Steer(g *Group, index uint32) error { return attach(g.first(), program{ret(index)}) }

// Blind hides a listener from new connections.
func Blind(l *net.TCPListener) error { return blind(l) }

// BlindFirst hides the first of a group's listeners.
func BlindFirst(g *Group) error { return blind(g.first().l) }

// OpenAndClose opens a member to which nothing is steered, and closes it.
func OpenAndClose(ctx context.Context, g *Group) error {
	if err := g.pump(); err != nil {
		return err
	}
	if err := g.openSpares(ctx, 1); err != nil {
		return err
	}
	return g.closeMember(g.spares()[0])
}
