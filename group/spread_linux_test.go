package group_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

// counted is a group that counts what Accept returns, by listener, and answers.
type counted struct {
	g        *group.Group
	accepted []atomic.Int64
	done     chan error
}

func count(t *testing.T, size int, network, address string) *counted {
	t.Helper()
	g, err := group.Config{Size: size}.Listen(t.Context(), network, address)
	require.NoError(t, err)
	return &counted{g, make([]atomic.Int64, size), make(chan error, 1)}
}

func (c *counted) serve() {
	var i atomic.Int64
	serving := make(chan struct{}, len(c.accepted))
	go func() {
		c.done <- c.g.Serve(func(l net.Listener) error {
			n := &c.accepted[i.Add(1)-1]
			serving <- struct{}{}
			return answer(countingListener{l, n})
		})
	}()
	<-serving
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func (c *counted) sum() (n int64) {
	for i := range c.accepted {
		n += c.accepted[i].Load()
	}
	return n
}

// What users accept is what clients dialed and not one connection more, whether the
// group serves before it takes over or after.
func TestProbesUnseen(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, serveFirst := range []bool{true, false} {
			s := count(t, 3, network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
			s.serve()
			address := s.g.Addr().String()
			accepted := int64(0)
			stop := load(address, 8)
			for i := range 8 {
				next := count(t, 1+i%3, network, address)
				if serveFirst {
					next.serve()
				}
				require.NoError(t, next.g.TakeOver(t.Context(), 0))
				if !serveFirst {
					next.serve()
				}
				require.NoError(t, s.g.Drain(t.Context()))
				require.NoError(t, <-s.done)
				accepted += s.sum()
				s = next
			}
			require.NoError(t, group.Settled(t.Context(), s.g))
			answered, lost := stop()
			assert.Empty(t, lost)
			assert.EqualValues(t, answered, accepted+s.sum())
			require.NoError(t, s.g.Close())
			require.NoError(t, <-s.done)
		}
	}
}

// Nor does another process of the generation see one, while the newcomer settles.
func TestProbesUnseenByWorkers(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	old := count(t, 2, "tcp4", "127.0.0.1:0")
	old.serve()
	address := old.g.Addr().String()
	worker := count(t, 2, "tcp4", address)
	worker.serve()
	s := count(t, 1, "tcp4", address)
	s.serve()
	require.NoError(t, s.g.TakeOver(t.Context(), 3))
	who(t, address, 100)
	require.NoError(t, old.g.Drain(t.Context()))
	require.NoError(t, group.Settled(t.Context(), s.g))
	who(t, address, 100)
	assert.Zero(t, old.sum())
	assert.NotZero(t, s.sum())
	assert.EqualValues(t, 200, worker.sum()+s.sum())
	require.NoError(t, s.g.Close())
	require.NoError(t, worker.g.Close())
}

// What nobody accepts is waited for until ctx ends, and counted.
func TestDrainCounts(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	old := count(t, 1, "tcp4", "127.0.0.1:0") // does not serve
	conns := dialAll(t, old.g.Addr().String(), 3)
	s := start(t, 1, "tcp4", old.g.Addr().String())
	require.NoError(t, s.g.TakeOver(t.Context(), 0))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := old.g.Drain(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "3 connections abandoned")
	for _, c := range conns {
		_, err := c.Read(make([]byte, 1))
		assert.Error(t, err)
	}
	require.NoError(t, s.g.Close())
	require.NoError(t, <-s.done)
}

// A listener that is being drained, out of sight but not closed, has its number still,
// unless it was out of sight before the newcomer listened.
func TestTakeOverFromBlinded(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, before := range []bool{false, true} {
			l := joinNetwork(t, network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
			if before {
				require.NoError(t, group.Blind(l.(*net.TCPListener)))
			}
			s := start(t, 2, network, l.Addr().String())
			if !before {
				require.NoError(t, group.Blind(l.(*net.TCPListener)))
			}
			require.NoError(t, s.g.TakeOver(t.Context(), 0))
			assert.Equal(t, !before, group.Spares(s.g) == 1)
			assert.Equal(t, map[string]int{"\x01": 100}, who(t, l.Addr().String(), 100))
			require.NoError(t, l.Close())
			require.NoError(t, group.Settled(t.Context(), s.g))
			assert.Zero(t, group.Spares(s.g))
			require.NoError(t, s.g.Close())
			require.NoError(t, <-s.done)
		}
	}
}

// TakeOver does not wait for anybody to accept, however many connections wait.
func TestTakeOverBeforeServe(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	old := count(t, 2, "tcp4", "127.0.0.1:0")
	old.serve()
	address := old.g.Addr().String()
	next := count(t, 2, "tcp4", address)
	var clients sync.WaitGroup
	var failed atomic.Int64
	// Half of them come to the newcomer, which does not serve.
	connected := make(chan struct{}, 100)
	for range cap(connected) {
		clients.Go(func() {
			c, err := net.Dial("tcp", address)
			connected <- struct{}{}
			if err != nil {
				failed.Add(1)
				return
			}
			defer c.Close()
			if _, err := c.Write([]byte{1}); err != nil {
				failed.Add(1)
				return
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				failed.Add(1)
			}
		})
	}
	for range cap(connected) {
		<-connected
	}
	require.NoError(t, next.g.TakeOver(t.Context(), 0))
	require.NoError(t, old.g.Drain(t.Context()))
	require.NoError(t, <-old.done)
	require.NoError(t, group.Settled(t.Context(), next.g)) // nor does this
	next.serve()
	clients.Wait()
	assert.Zero(t, failed.Load())
	assert.NotZero(t, next.sum())
	assert.EqualValues(t, cap(connected), old.sum()+next.sum())
	require.NoError(t, next.g.Close())
	require.NoError(t, <-next.done)
}

// After settling no program is attached, no spare is left, and the kernel's hash
// spreads connections evenly.
func TestSettledEvenly(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	const size, sources = 4, 20
	total := scaled(40_000)
	old := start(t, 3, "tcp4", "127.0.0.1:0")
	address := old.g.Addr().String()
	s := count(t, size, "tcp4", address)
	s.serve()
	require.NoError(t, s.g.TakeOver(t.Context(), 0))
	require.Equal(t, 3, group.Spares(s.g))
	require.NoError(t, old.g.Drain(t.Context()))
	require.NoError(t, <-old.done)
	require.NoError(t, group.Settled(t.Context(), s.g))
	assert.Zero(t, group.Spares(s.g))
	assert.False(t, attached(t, s.g.Listeners()[0]))

	// Each connection has another pair of address and port: those that come again
	// have the same hash and would count twice.
	var clients sync.WaitGroup
	for i := range sources {
		clients.Go(func() {
			from := net.IPv4(127, 0, 1, byte(i+1)).String() + ":0"
			for range total / sources {
				c, err := reuse.Config{DeferPort: reuse.On}.Dial(context.Background(), "tcp4", from, address)
				if !assert.NoError(t, err) {
					return
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				_, _ = c.Write([]byte{1})
				_, err = c.Read(make([]byte, 1))
				c.Close()
				if !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	clients.Wait()
	require.EqualValues(t, total, s.sum())
	chi := 0.0
	for i := range s.accepted {
		want := float64(total) / size
		d := float64(s.accepted[i].Load()) - want
		chi += d * d / want
	}
	t.Log("chi-square", chi)
	assert.Less(t, chi, 30.66, "one in a million with three degrees of freedom") // of even spreads
	require.NoError(t, s.g.Close())
	require.NoError(t, <-s.done)
}

// Members to which nothing is steered may come and go under load.
func TestOpensAndCloses(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	cycles := scaled(1_000)
	for _, at := range [][2]string{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		s := start(t, 1, at[0], at[1])
		require.NoError(t, group.Steer(s.g, 0))
		stop := load(s.g.Addr().String(), 16)
		for range cycles {
			require.NoError(t, group.OpenAndClose(t.Context(), s.g))
			require.NoError(t, ask(s.g.Addr().String())) // lets the others run, too
		}
		answered, lost := stop()
		assert.NotZero(t, answered)
		assert.Empty(t, lost)
		t.Log(at[0], answered, "answered")
		require.NoError(t, s.g.Close())
		require.NoError(t, <-s.done)
	}
}

// A blinded listener is not found, and the connections in its queue are still
// accepted.
func TestBlind(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	for _, at := range [][2]string{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		l, err := net.Listen(at[0], at[1])
		require.NoError(t, err)
		c, err := net.Dial(at[0], l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, group.Blind(l.(*net.TCPListener)))
		_, err = net.Dial(at[0], l.Addr().String())
		require.Error(t, err)
		got, err := l.Accept()
		require.NoError(t, err)
		assert.Equal(t, c.LocalAddr().String(), got.RemoteAddr().String())
		require.NoError(t, got.Close())
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
	}
}
