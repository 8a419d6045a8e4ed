package handoverhttp_test

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// load sends requests from several clients, on fresh or kept connections, until the
// function that it returns is called, which returns how many were answered. Each must be.
func load(t testing.TB, protocol, address string, keep bool) (end func() int64) {
	var clients sync.WaitGroup
	var ends atomic.Bool
	var answered atomic.Int64
	for range 3 {
		c := newClient(t, protocol, keep)
		clients.Go(func() {
			for !ends.Load() {
				if _, err := c.ask(address); !assert.NoError(t, err, "kept: %v", keep) {
					return
				}
				answered.Add(1)
			}
		})
	}
	end = func() int64 {
		ends.Store(true)
		clients.Wait()
		return answered.Load()
	}
	t.Cleanup(func() { end() })
	return end
}

// rounds returns n, or more in the release set of tests.
func rounds(n int) int {
	if os.Getenv("REUSE_RELEASE") == "1" {
		return 10 * n
	}
	return n
}

func TestRestartsLoseNoRequest(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		name := newName(t)
		address, stop, end := run(t, protocol, name)
		fresh, kept := load(t, protocol, address, false), load(t, protocol, address, true)
		for range rounds(4) {
			same, stopNext, next := run(t, protocol, name)
			require.Equal(t, address, same)
			require.NoError(t, receive(t, end)) // its clients' next requests end it
			stop, end = stopNext, next
		}
		assert.Positive(t, fresh())
		assert.Positive(t, kept())
		stop()
		assert.NoError(t, receive(t, end))
		_, err := net.Dial("tcp", address)
		assert.Error(t, err, "nothing listens")
	})
}

func anyMoment() { time.Sleep(rand.N(400 * time.Microsecond)) }

// The next process holds the sockets. It serves on, whatever happens to the running one.
func TestStopOfOldProcessDuringHandOverLosesNoRequest(t *testing.T) {
	t.Parallel()
	name := newName(t)
	now := serving(t, name, 0, echoServer(), echoServer())
	var loads []func() int64
	for _, l := range now.listeners {
		for _, keep := range []bool{false, true} {
			loads = append(loads, load(t, "HTTP/1.1", l.Addr().String(), keep))
		}
	}
	for range rounds(20) {
		next := open(t, name)
		next.serve(t, 0, echoServer(), echoServer())
		anyMoment()
		now.stop()
		now.ended(t)
		receive(t, now.Replaced())
		next.ready(t)
		now = next
	}
	for _, end := range loads {
		assert.Positive(t, end())
	}
	now.stop()
	now.ended(t)
}

// The next process may have become current by then, or not: its two servers agree. If it
// has not, the running process serves on.
func TestStopOfNewProcessDuringHandOver(t *testing.T) {
	t.Parallel()
	name := newName(t)
	now := serving(t, name, 0, echoServer(), echoServer())
	for range rounds(20) {
		next := open(t, name)
		next.serve(t, 0, echoServer(), echoServer())
		anyMoment()
		next.stop()
		errs := [2]error{receive(t, next.ends[0]), receive(t, next.ends[1])}
		require.Equal(t, errs[0] == nil, errs[1] == nil, "%v", errs)
		require.NoError(t, next.Close())
		if errs[0] == nil {
			now.ended(t)
			now = serving(t, name, 0, echoServer(), echoServer())
			continue
		}
		require.ErrorIs(t, errs[0], context.Canceled)
		require.ErrorIs(t, errs[1], context.Canceled)
		serves(t, now.address)
	}
	now.stop()
	now.ended(t)
}
