//go:build unix

package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := begin(t, Config{})
	l := listen(t, p, reuse.Config{}, "unix", unixAddress(t))
	dial(t, l.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := p.Drain(ctx)
	isError(t, err, context.DeadlineExceeded, "connections waited on 1 listeners")
	assert.Equal(t, err, p.Drain(soon(t)))
	_, err = l.Accept()
	assert.ErrorIs(t, err, net.ErrClosed)
}

// What a next process holds is not hidden, nor does a process that ends remove a Unix
// listener's file from it. It becomes current.
func TestDrainLeavesSocketsToNewcomer(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		path := unixAddress(t)
		listening := func() (*Process, net.Listener) {
			p := begin(t, c)
			return p, listen(t, p, reuse.Config{}, "unix", path)
		}
		old, l := listening()
		ready(t, old)
		queued := dial(t, l.Addr())
		early, _ := listening()
		require.NoError(t, early.Drain(soon(t))) // it never was current
		next, l2 := listening()
		later := listen(t, old, reuse.Config{}, "unix", unixAddress(t)) // the newcomer does not hold it
		queuedLater := dial(t, later.Addr())
		drained := make(chan error, 1)
		go func() { drained <- old.Drain(soon(t)) }()
		require.Eventually(t, removed(later.Addr().String()), 20*time.Second, time.Millisecond)
		answerAll(later, "old")
		answered(t, "old", queuedLater)
		require.NoError(t, <-drained)
		replaced(t, old)
		answerAll(l2, "next")
		answers(t, "next", l.Addr())
		answered(t, "next", queued)
		ready(t, next)
		third, l3 := listening()
		answerAll(l3, "third")
		require.NoError(t, next.Close())
		ready(t, third)
		answers(t, "third", l.Addr())
	})
}

// Nor is what it is about to receive, if the ctx ends earlier.
func TestDrainHidesNothingFromNewcomer(t *testing.T) {
	t.Parallel()
	old, l := current(t, Config{Name: rand.Text()})
	var held netSocket
	require.NoError(t, control(l.(*net.TCPListener), func(fd int) (err error) { held, err = adopt(fd); return err }))
	defer held.Close()
	require.NoError(t, old.do(func() { old.admit(&link{}, message{Type: typeHello, Process: "x"}) }))
	require.NoError(t, old.Drain(ended()))
	answerAll(held.(net.Listener), "newcomer")
	answers(t, "newcomer", l.Addr())
}

// A process that starts during a Drain opens the address when the last one has gone.
func TestStartWaitsForDrain(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		p, l := current(t, c)
		u := listen(t, p, reuse.Config{}, "unix", unixAddress(t))
		held := dial(t, u.Addr()) // and not accepted
		drained := make(chan error, 1)
		go func() { drained <- p.Drain(soon(t)) }()
		require.Eventually(t, removed(u.Addr().String()), 20*time.Second, time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := c.Start(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		started := startAsync(t, c)
		answerAll(u, "old")
		answered(t, "old", held)
		if err = <-drained; !errors.Is(err, errors.ErrUnsupported) {
			require.NoError(t, err)
		}
		next := <-started
		defer next.Close()
		listen(t, next, reuse.Config{}, "tcp4", l.Addr().String())
		ready(t, next)
	})
}
