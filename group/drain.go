//go:build darwin || freebsd || linux || netbsd || openbsd

package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// settled is how long a connection takes at most from the kernel's choice of
// a listener to its queue, other than by the network.
const settled = 2 * time.Millisecond

// quiet is for how long nothing may have been accepted until a queue counts as
// empty, and seldom as long where the accepts cannot be counted.
const (
	quiet  = 5 * time.Millisecond
	seldom = 20 * time.Millisecond
)

func (g *Group) drainAll(ctx context.Context) error {
	if err := g.begin("drain"); err != nil {
		return err
	}
	g.stopHolding()
	g.takeTurn()
	defer g.endTurn()
	members := g.allMembers()
	if len(members) == 0 {
		return g.closedError("drain")
	}
	var reasons reasons
	if err := g.pump(); err != nil {
		reasons.addError(0, err)
	}
	g.drain(ctx, members, &reasons)
	members, left := g.takeMembers()
	members = append(members, left...)
	for _, m := range members { // ends when users have what it accepted last
		select {
		case <-m.done:
		case <-ctx.Done():
		}
	}
	g.end(members, nil)
	for _, m := range members {
		if n := m.abandoned.Load(); n > 0 {
			reasons.add(int(n), "not taken by Accept")
		}
	}
	g.releaseHold()
	return reasons.err()
}

// drain empties and closes members of one address.
func (g *Group) drain(ctx context.Context, members []*member, r *reasons) {
	if err := g.detachHold(); err != nil {
		r.addError(0, err)
	}
	first := members[0]
	alone := g.succeeded(ctx, members)
	if alone != nil {
		r.addError(0, alone)
		// Nobody else serves, or anybody: new connections are to find no listener.
		for _, m := range members {
			if err := blind(m.l); err != nil {
				r.addError(0, err)
			}
		}
	}
	if n, err := handshakes(ctx, first.l, g.patience(first.l)); err != nil {
		r.addError(n, err)
	} else if n > 0 {
		r.add(n, "handshakes not finished")
	}
	ctx, cancel := comeToAnEnd(ctx, alone)
	defer cancel()
	g.mu.Lock()
	left := slices.Clone(g.left)
	g.mu.Unlock()
	if err := empty(ctx, func() (bool, uint64, error) {
		accepts := uint64(0)
		for _, m := range left {
			if m.held.Load() > 0 {
				return false, 0, nil
			}
		}
		for _, m := range members {
			n, err := queued(m.l)
			if err != nil || n > 0 || m.held.Load() > 0 {
				return false, 0, err
			}
			accepts += m.accepts.Load()
		}
		return true, accepts, nil
	}); err != nil {
		r.addError(0, err) // what is left is counted when it is closed
	}
	if alone == nil { // and still not
		if err := g.succeeded(ctx, members); err != nil {
			r.addError(0, err)
		}
	}
	for _, m := range members {
		if err := blind(m.l); err != nil {
			r.addError(0, err)
		}
	}
	settleQueues()
	for _, m := range members {
		if n, err := m.closeEmpty(ctx); err != nil {
			r.addError(n, err)
		}
	}
}

// patience is how long a handshake may take.
func (g *Group) patience(l *net.TCPListener) time.Duration {
	wait := g.config.Handshake
	if s, err := deferred(l); err == nil {
		wait += time.Duration(s) * time.Second
	}
	return wait
}

// empty waits until look has said for some time that the queues are empty, and that
// nothing more has been accepted.
func empty(ctx context.Context, look func() (empty bool, accepts uint64, err error)) error {
	if err := pause(ctx, settled); err != nil {
		return err
	}
	var accepts uint64
	for since := time.Now(); ; {
		empty, sum, err := look()
		if err != nil {
			return err
		}
		if !empty || sum != accepts {
			accepts, since = sum, time.Now()
		} else if time.Since(since) >= quiet {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// closeEmpty closes a member that new connections do not see. It returns how many
// there were in its queue at that moment.
func (m *member) closeEmpty(ctx context.Context) (int, error) {
	var err error
	n, qerr := queued(m.l)
	for n > 0 && qerr == nil && pause(ctx, time.Millisecond) == nil {
		n, qerr = queued(m.l)
	}
	if n > 0 {
		err = errors.Join(err, errors.New("in the queue when it closed"))
	}
	return n, errors.Join(err, qerr, m.close())
}

func drainListener(ctx context.Context, l net.Listener) error {
	tcp, ok := l.(*net.TCPListener)
	if !ok || tcp == nil {
		return fmt.Errorf("group: %w: %T is no *net.TCPListener", errors.ErrUnsupported, l)
	}
	var r reasons
	if _, err := tcp.SyscallConn(); err != nil {
		return err
	}
	if _, err := queued(tcp); err != nil {
		return err
	}
	alone := listenerSucceeded(ctx, tcp)
	if alone != nil {
		r.addError(0, alone)
		if err := blind(tcp); err != nil {
			r.addError(0, err)
		}
	}
	wait := 3 * time.Second
	if s, err := deferred(tcp); err == nil {
		wait += time.Duration(s) * time.Second
	}
	if n, err := handshakes(ctx, tcp, wait); err != nil {
		r.addError(n, err)
	} else if n > 0 {
		r.add(n, "handshakes not finished")
	}
	ctx, cancel := comeToAnEnd(ctx, alone)
	defer cancel()
	left := 0
	for since := time.Now(); time.Since(since) < seldom; {
		n, err := queued(tcp)
		if err != nil {
			return err // it was closed by somebody else
		}
		if left = n; n > 0 {
			since = time.Now()
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			r.addError(left, err)
			break
		}
	}
	if alone == nil { // and still not
		if err := listenerSucceeded(ctx, tcp); err != nil {
			r.addError(0, err)
		}
	}
	if err := blind(tcp); err != nil {
		r.addError(0, err)
	}
	settleQueues()
	if n, err := queued(tcp); err == nil && n > left {
		r.add(n-left, "in the queue when it closed")
	}
	if err := tcp.Close(); err != nil {
		r.addError(0, err)
	}
	return r.err()
}

// comeToAnEnd limits the wait for a moment without connections where they cannot be
// kept away from who is alone.
func comeToAnEnd(ctx context.Context, alone error) (context.Context, context.CancelFunc) {
	if alone == nil || canBlind {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Second)
}

// reasons why a drain may have lost something.
type reasons struct {
	abandoned int
	why       []error
}

func (r *reasons) add(n int, why string) { r.addError(n, errors.New(why)) }

func (r *reasons) addError(n int, why error) {
	r.abandoned += n
	if !slices.ContainsFunc(r.why, func(err error) bool { return err.Error() == why.Error() }) {
		r.why = append(r.why, why)
	}
}

func (r *reasons) err() error {
	if len(r.why) == 0 {
		return nil
	}
	return &drainError{*r}
}

// A drainError wraps all of the reasons.
type drainError struct{ reasons }

func (e *drainError) Error() string {
	words := make([]string, len(e.why))
	for i, err := range e.why {
		words[i] = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	what := "what came meanwhile may be lost"
	if e.abandoned > 0 {
		what = fmt.Sprintf("%d connections abandoned", e.abandoned)
	}
	return fmt.Sprintf("group: drained, but %s: %s", what, strings.Join(words, "; "))
}

func (e *drainError) Unwrap() []error { return e.why }

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
