package handover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// emptyFor is how long queues must have been empty before listeners that are hidden
// are closed. A connection that the kernel has found a listener for is queued by then.
const emptyFor = 20 * time.Millisecond

func (p *Process) drain(ctx context.Context) error {
	first := false
	var newcomers []*link
	_ = p.do(func() { // an error says that it has ended
		if first = !p.leaving; first {
			p.leaving = true
			p.change()
			newcomers = slices.Clone(p.newcomer)
		}
	})
	for _, l := range newcomers {
		select {
		case <-l.sent: // only then it holds them
		case <-ctx.Done():
		}
	}
	var hidden []*socket
	var err error
	if first && p.do(func() {
		// Hiding a socket hides it from all who hold it.
		hidden, err = hideSockets(p.sockets, func(s *socket) bool {
			gave := func(l *link) bool { return slices.Contains(l.gave, s) }
			return s.parent || slices.ContainsFunc(p.newcomer, gave) || p.previous != nil && s.borrowed // by those that have not died
		})
	}) == nil {
		err = awaitEmpty(ctx, hidden, err)
		_ = p.do(func() { p.over, p.drainErr = true, err })
		<-p.done
	}
	select { // for the first call, or for a hand-over
	case <-p.done:
	case <-ctx.Done():
		select {
		case <-p.done:
		default:
			return ctx.Err()
		}
	}
	return p.drainErr
}

// hideSockets hides listeners and returns them. It closes those that another process holds,
// whose queues live on. It runs in own: SetUnlinkOnClose and Close of one listener race.
func hideSockets(list []*socket, held func(*socket) bool) (hidden []*socket, err error) {
	for _, s := range list {
		if s.isPacket || s.closed() {
			continue
		}
		if held(s) {
			s.unlinkOnClose(false)
			s.Close()
			continue
		}
		if herr := s.hide(); herr != nil {
			err = errors.Join(err, fmt.Errorf("%v cannot be hidden, and connections that arrive while it closes are lost: %w", s, herr))
		}
		hidden = append(hidden, s)
	}
	return hidden, err
}

// awaitEmpty waits until the queues of listeners are empty. With an error of hideSockets,
// which it returns, they may never be.
func awaitEmpty(ctx context.Context, hidden []*socket, err error) error {
	wait := ctx
	if err != nil {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	// Only a look that finds nothing ends the wait: this process may have been stopped
	// since the one before.
	var since time.Time
	for len(hidden) > 0 {
		n := 0
		for _, s := range hidden {
			if s.pending() {
				n++
			}
		}
		if n > 0 {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) >= emptyFor {
			break
		}
		if !pause(wait.Done(), time.Millisecond) {
			if ctx.Err() != nil && n > 0 {
				err = errors.Join(err, fmt.Errorf("connections waited on %d listeners that were closed: %w", n, ctx.Err()))
			}
			break
		}
	}
	return err
}
