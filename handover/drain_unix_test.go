//go:build unix

package handover

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"strconv"
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
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "connections waited on 1 listeners")
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
		p := begin(t, c)
		l := listen(t, p, reuse.Config{}, "unix", unixAddress(t))
		ready(t, p)
		queued := dial(t, l.Addr())
		drained := make(chan error, 1)
		go func() { drained <- p.Drain(soon(t)) }()
		require.Eventually(t, removed(l.Addr().String()), 20*time.Second, time.Millisecond)
		waitedFor(t, strconv.Itoa(os.Getpid()), startUntil(c))
		started := startAsync(t, c)
		answerAll(l, "old")
		answered(t, "old", queued)
		require.NoError(t, <-drained)
		next := <-started
		defer next.Close()
		listen(t, next, reuse.Config{}, "unix", l.Addr().String())
		ready(t, next)
	})
}
