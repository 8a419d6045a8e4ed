package handoverhttp_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
)

// load sends requests from several clients, on fresh or kept connections, until the
// function that it returns is called. That tells how many were answered. Each other
// one fails the test, unless allowed.
func load(t testing.TB, protocol, address string, keep bool, allowed func(error) bool) (stop func() int) {
	var clients sync.WaitGroup
	var ends atomic.Bool
	var answered, lost atomic.Int64
	for range 3 {
		c := newClient(t, protocol, keep)
		clients.Go(func() {
			for !ends.Load() && lost.Load() < 10 {
				if _, err := c.ask(address); err == nil {
					answered.Add(1)
				} else if !allowed(err) {
					lost.Add(1)
					t.Errorf("lost (kept: %v): %v", keep, err)
				}
			}
		})
	}
	stop = func() int {
		ends.Store(true)
		clients.Wait()
		return int(answered.Load())
	}
	t.Cleanup(func() { stop() })
	return stop
}

func none(error) bool { return false }

func TestRestartsLoseNoRequest(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			name := newName(t)
			now := testproc.Start(t, "server", protocol, name)
			address := now.Receive()
			fresh, kept := load(t, protocol, address, false, none), load(t, protocol, address, true, none)
			restarts := 12
			if testing.Short() {
				restarts = 3
			}
			for range restarts {
				next := testproc.Start(t, "server", protocol, name)
				require.Equal(t, address, next.Receive())
				// Its clients' next requests end it; its input is still open.
				require.Equal(t, "ended: <nil>", now.Receive())
				now = next
			}
			assert.Positive(t, fresh())
			assert.Positive(t, kept())
			t.Logf("%d fresh, %d kept", fresh(), kept())
		})
	}
}

func servers() []*http.Server {
	return []*http.Server{newServer("HTTP/1.1", echo), newServer("HTTP/1.1", echo)}
}

// A process may be told to stop at any moment of a hand-over.
func TestStopDuringHandOverLosesNoRequest(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	// The next process holds the sockets: whatever happens to the running one, the
	// next one serves on.
	t.Run("old", func(t *testing.T) {
		t.Parallel()
		name := newName(t)
		now := open(t, name)
		now.serve(t, 0, servers()...)
		var stops []func() int
		for _, l := range now.listeners {
			for _, keep := range []bool{false, true} {
				stops = append(stops, load(t, "HTTP/1.1", l.Addr().String(), keep, none))
			}
		}
		for range rounds {
			next := open(t, name)
			next.serve(t, 0, servers()...)
			time.Sleep(rand.N(400 * time.Microsecond)) // any moment
			now.stop()
			now.ended(t)
			receive(t, now.Replaced())
			require.NoError(t, next.Ready(t.Context()))
			now = next
		}
		for _, stop := range stops {
			assert.Positive(t, stop())
		}
		now.stop()
		now.ended(t)
	})
	// The next process may have become current by then, or not: its two servers agree.
	// If it has, nobody listens after it, and clients cannot connect.
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		name := newName(t)
		now := open(t, name)
		now.serve(t, 0, servers()...)
		refused := func(err error) bool {
			var op *net.OpError
			return errors.As(err, &op) && op.Op == "dial" && errors.Is(err, errRefused)
		}
		stop := load(t, "HTTP/1.1", now.address, false, refused)
		current := map[bool]int{}
		for range rounds {
			next := open(t, name)
			next.serve(t, 0, servers()...)
			time.Sleep(rand.N(400 * time.Microsecond)) // any moment
			next.stop()
			errs := [2]error{receive(t, next.ends[0]), receive(t, next.ends[1])}
			require.Equal(t, errs[0] == nil, errs[1] == nil, "%v", errs)
			require.NoError(t, next.Close())
			current[errs[0] == nil]++
			if errs[0] != nil {
				require.ErrorIs(t, errs[0], context.Canceled)
				require.ErrorIs(t, errs[1], context.Canceled)
				newClient(t, "HTTP/1.1", false).mustAsk(t, now.address) // the running process serves on
				continue
			}
			now.ended(t)
			stop()
			now = open(t, name)
			now.serve(t, 0, servers()...)
			require.NoError(t, now.Ready(t.Context()))
			stop = load(t, "HTTP/1.1", now.address, false, refused)
		}
		t.Log("it had become current:", current)
		stop()
		now.stop()
		now.ended(t)
	})
}
