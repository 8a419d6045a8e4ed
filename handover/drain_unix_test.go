//go:build unix

package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
)

// A Drain answers what is queued, or says that it cannot.
func TestDrainAnswersWhatIsQueued(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp4": anyPort, "unix": unixAddress(t)} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			p := begin(t, Config{})
			l := listen(t, p, reuse.Config{}, network, address)
			answerAll(l, "p")
			clients := load(t, 4, l.Addr())
			clients.wait(t, "p")
			err := p.Drain(soon(t))
			if errors.Is(err, errors.ErrUnsupported) && network != "unix" {
				t.Skip(err)
			}
			require.NoError(t, err)
			require.NoError(t, p.Drain(ended()), "which is over")
			clients.wait(t, "")
			for _, err := range clients.end() {
				if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
					require.NoError(t, err)
				}
			}
		})
	}
}

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

// What a next process holds is not hidden. It becomes current.
func TestDrainLeavesSocketsToNewcomer(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old, l := listening(t, c)
		ready(t, old)
		queued := dial(t, l.Addr())
		early, _ := listening(t, c)
		require.NoError(t, early.Drain(soon(t))) // it never was current
		next, l2 := listening(t, c)
		later := listen(t, old, reuse.Config{}, "tcp4", anyPort) // the newcomer does not hold it
		queuedLater := dial(t, later.Addr())
		drained := make(chan error, 1)
		go func() { drained <- old.Drain(soon(t)) }()
		answerAll(later, "old")
		answered(t, "old", queuedLater)
		if err := <-drained; !errors.Is(err, errors.ErrUnsupported) {
			require.NoError(t, err)
		}
		replaced(t, old)
		answerAll(l2, "new")
		answers(t, "new", l.Addr())
		answered(t, "new", queued)
		ready(t, next)
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

// A process that ends while the next one has its Unix listener leaves the file.
func TestFileIsLeftToNewcomer(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		for name, end := range map[string]func(p *Process) error{
			"Close": (*Process).Close,
			"Drain": func(p *Process) error { return p.Drain(soon(t)) },
		} {
			c := c
			c.Name = fmt.Sprintf("%.8s-%s", c.Name, name)
			path := unixAddress(t)
			old := begin(t, c)
			listen(t, old, reuse.Config{}, "unix", path)
			ready(t, old)
			next := begin(t, c)
			l := listen(t, next, reuse.Config{}, "unix", path)
			answerAll(l, "new")
			require.NoError(t, end(old), name)
			ready(t, next)
			answers(t, "new", l.Addr())
		}
	})
}
