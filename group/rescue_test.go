//go:build unix

package group_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
)

// rescuing opens a group of which only the first listener accepts.
func rescuing(t *testing.T, rescue bool) (g *group.Group, served chan error) {
	t.Helper()
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 4, Rescue: rescue}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			assert.ErrorIs(t, err, net.ErrClosed)
		}
	})
	served = make(chan error, 1)
	go func() { served <- answer(g.Listeners()[0]) }()
	return g, served
}

// askAll asks from n clients at once and returns the errors of those without an answer.
func askAll(address string, n int) (lost []error) {
	var clients sync.WaitGroup
	var mu sync.Mutex
	for range n {
		clients.Go(func() {
			if err := ask(address); err != nil {
				mu.Lock()
				defer mu.Unlock()
				lost = append(lost, err)
			}
		})
	}
	clients.Wait()
	return lost
}

// Of four listeners three do not accept, and yet everybody is answered, also while
// the group takes over or drains.
func TestRescue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		during func(g *group.Group) error
	}{
		{"quiet", func(*group.Group) error { return nil }},
		{"taking over", func(g *group.Group) error {
			for range 20 {
				if err := g.TakeOver(context.Background(), 0); err != nil && !errors.Is(err, errors.ErrUnsupported) {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, served := rescuing(t, true)
			changed := make(chan error, 1)
			go func() { changed <- tt.during(g) }()
			assert.Empty(t, askAll(g.Addr().String(), 100))
			require.NoError(t, <-changed)
			assert.Empty(t, askAll(g.Addr().String(), 100))
			require.NoError(t, g.Close())
			require.ErrorIs(t, <-served, net.ErrClosed)
		})
	}
}

// Drain gives what stalled listeners have to those that accept, too.
func TestRescueDrain(t *testing.T) {
	t.Parallel()
	if !takesOver("Port", "127.0.0.1:0") {
		t.Skip("TakeOver is unsupported")
	}
	for range 5 {
		g, served := rescuing(t, true)
		var clients []net.Conn
		for range 40 {
			c, err := net.Dial("tcp4", g.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			_, err = c.Write([]byte{1})
			require.NoError(t, err)
			clients = append(clients, c)
		}
		next, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 1}.Listen(t.Context(), "tcp4", g.Addr().String())
		require.NoError(t, err)
		defer next.Close()
		require.NoError(t, next.TakeOver(t.Context(), 0))
		drained := make(chan error, 1)
		go func() { drained <- g.Drain(t.Context()) }()
		for _, c := range clients {
			_, err := c.Read(make([]byte, 1))
			require.NoError(t, err)
		}
		require.NoError(t, <-drained)
		require.ErrorIs(t, <-served, net.ErrClosed)
	}
}

// Nobody accepts: what is in the queues stays there, and Close ends all.
func TestRescueNobody(t *testing.T) {
	t.Parallel()
	g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 2, Rescue: true}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	c, err := net.Dial("tcp4", g.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, g.Close())
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err = c.Read(make([]byte, 1))
	var late net.Error
	require.False(t, err == nil || errors.As(err, &late) && late.Timeout(), "the connection is left open")
}

// Two goroutines wait on the one listener that accepts, and each returns one of two
// connections that are rescued at the same time.
func TestRescueTwoWaiting(t *testing.T) {
	t.Parallel()
	for range 10 {
		g, err := group.Config{Socket: reuse.Config{Port: reuse.On}, Size: 2, Rescue: true}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		require.NoError(t, err)
		got := make(chan error, 2)
		for range cap(got) {
			go func() { // and does not come back
				c, err := g.Listeners()[0].Accept()
				if err == nil {
					c.Close()
				}
				got <- err
			}()
		}
		for range cap(got) {
			c, err := net.Dial("tcp4", g.Addr().String())
			require.NoError(t, err)
			defer c.Close()
		}
		for range cap(got) {
			require.NoError(t, <-got)
		}
		require.NoError(t, g.Close())
	}
}
