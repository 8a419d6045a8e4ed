package group_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

// busy knows which connections of a server are new or active.
type busy struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	seen  *sync.Cond
}

func newBusy() *busy {
	b := &busy{conns: map[net.Conn]bool{}}
	b.seen = sync.NewCond(&b.mu)
	return b
}

func (b *busy) state(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == http.StateNew || s == http.StateActive {
		b.conns[c] = true
	} else {
		delete(b.conns, c)
	}
	b.seen.Broadcast()
}

// wait waits until so many connections are new or active.
func (b *busy) wait(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.conns) != n {
		b.seen.Wait()
	}
}

// gate is a listener whose Accept waits until it is opened.
type gate struct {
	net.Listener
	open <-chan struct{}
}

func (g gate) Accept() (net.Conn, error) {
	<-g.open
	return g.Listener.Accept()
}

// A server of net/http that is shut down before its group is drained loses requests,
// those in the queue and those on connections that it has accepted. Drained first,
// and shut down when no connection is new or active, it loses none.
func TestDrainThenShutdown(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	const clients = 40
	// restart returns how many of the clients had no answer.
	restart := func(end func(g *group.Group, srv *http.Server, b *busy)) (lost int) {
		g, err := group.Config{Size: 2}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		b := newBusy()
		srv := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "close")
				_, _ = io.WriteString(w, "hello")
			}),
			ConnState: b.state,
		}
		open := make(chan struct{})
		served := make(chan error, 1)
		go func() { served <- g.Serve(func(l net.Listener) error { return srv.Serve(gate{l, open}) }) }()

		// Half of the connections wait in the queue, with their requests.
		queued := dialAll(t, g.Addr().String(), clients/2)
		for _, c := range queued {
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
		}
		next := start(t, 2, "tcp4", g.Addr().String())
		require.NoError(t, next.g.TakeOver(t.Context(), 0))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			end(g, srv, b)
		}()
		close(open)
		for _, c := range queued {
			if !hasAnswer(c) {
				lost++
			}
		}
		<-ended
		if err := <-served; err != nil { // whoever was first has ended Serve
			assert.ErrorIs(t, err, http.ErrServerClosed)
		}
		require.NoError(t, next.g.Close())
		require.NoError(t, <-next.done)
		return lost
	}

	worst := 0
	for range 20 {
		worst = max(worst, restart(func(g *group.Group, srv *http.Server, _ *busy) {
			assert.NoError(t, srv.Shutdown(context.Background()))
			_ = g.Drain(context.Background())
		}))
	}
	assert.NotZero(t, worst, "of %d requests that Shutdown finds in the queue", clients/2)
	t.Log("Shutdown first:", worst, "of", clients/2, "lost in the worst of 20 restarts")

	for range 20 {
		assert.Zero(t, restart(func(g *group.Group, srv *http.Server, b *busy) {
			assert.NoError(t, g.Drain(context.Background()))
			b.wait(0)
			assert.NoError(t, srv.Shutdown(context.Background()))
		}))
	}
}

// Why to wait for StateNew: a request that reaches an accepted connection when
// Shutdown has begun is not answered.
func TestShutdownDropsNew(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	g, err := group.Config{Size: 1}.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	b := newBusy()
	begun := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}), ConnState: b.state}
	srv.RegisterOnShutdown(func() { close(begun) })
	served := make(chan error, 1)
	go func() { served <- g.Serve(srv.Serve) }()
	conns := dialAll(t, g.Addr().String(), 10)
	b.wait(len(conns))
	next := start(t, 1, "tcp4", g.Addr().String())
	require.NoError(t, next.g.TakeOver(t.Context(), 0))
	require.NoError(t, g.Drain(t.Context()))
	require.NoError(t, <-served)
	down := make(chan error, 1)
	go func() { down <- srv.Shutdown(context.Background()) }()
	<-begun
	lost := 0
	for _, c := range conns {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if !hasAnswer(c) {
			lost++
		}
	}
	assert.NotZero(t, lost)
	t.Log(lost, "of", len(conns), "lost")
	require.NoError(t, <-down)
	require.NoError(t, next.g.Close())
	require.NoError(t, <-next.done)
}

func dialAll(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		conns[i] = c
	}
	return conns
}

func hasAnswer(c net.Conn) bool {
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return err == nil && string(body) == "hello"
}
