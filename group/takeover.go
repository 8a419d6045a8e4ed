//go:build darwin || freebsd || linux || netbsd || openbsd

package group

import (
	"context"
	"errors"
	"slices"
)

// takeOver waits for its turn and ends early when the group is closed.
func (g *Group) takeOver(ctx context.Context, members int) error {
	select {
	case g.turn <- struct{}{}:
		defer g.endTurn()
	case <-g.shut.Done():
		return g.closedError("take over")
	case <-ctx.Done():
		return ctx.Err()
	}
	if g.shut.Err() != nil {
		return g.closedError("take over")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	given := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.shut, cancel)()
	err := g.pump()
	if err == nil {
		err = g.steerHere(ctx, members)
	}
	if err != nil || g.settled() {
		err = errors.Join(err, g.unpump())
	}
	if err != nil && g.shut.Err() != nil && given.Err() == nil {
		return g.closedError("take over")
	}
	return err
}

func (g *Group) allMembers() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.members)
}

// first returns an open member, nil if there is none.
func (g *Group) first() *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.members) == 0 {
		return nil
	}
	return g.members[0]
}
