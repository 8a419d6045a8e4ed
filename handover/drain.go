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
	var list []*socket
	var held func(*socket) bool
	if first && p.do(func() {
		list = p.sockets
		// Hiding a socket hides it from all who hold it.
		newcomers, previous := slices.Clone(p.newcomer), p.previous != nil // those that have not died
		held = func(s *socket) bool {
			has := func(l *link) bool { return slices.Contains(l.gave, s) }
			return s.parent || slices.ContainsFunc(newcomers, has) || previous && s.borrowed
		}
	}) == nil {
		err := drainSockets(ctx, list, held)
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

// drainSockets hides listeners, waits until their queues are empty, and closes them.
// Those that are held by another process, whose queues live on, it just closes.
func drainSockets(ctx context.Context, list []*socket, held func(*socket) bool) error {
	var errs []error
	var waiting []*socket
	for _, s := range list {
		if s.isPacket || s.closed() {
			continue
		}
		if held(s) {
			s.unlinkOnClose(false)
			s.Close()
			continue
		}
		if err := s.hide(); err != nil {
			errs = append(errs, fmt.Errorf("%v cannot be hidden, and connections that arrive while it closes are lost: %w", s, err))
		}
		waiting = append(waiting, s)
	}
	wait := ctx
	if len(errs) > 0 { // the queue may never be empty
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	// Only a look that finds nothing ends the wait: this process may have been stopped
	// since the one before.
	var since time.Time
	for len(waiting) > 0 {
		n := 0
		for _, s := range waiting {
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
				errs = append(errs, fmt.Errorf("connections waited on %d listeners that were closed: %w", n, ctx.Err()))
			}
			break
		}
	}
	closeListeners(waiting)
	return errors.Join(errs...)
}
