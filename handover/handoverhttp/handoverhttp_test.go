package handoverhttp_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover/handoverhttp"
)

func TestIdleConnectionWaitsForItsNextRequest(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		name := newName(t)
		server := func(id string) *http.Server {
			return newServer(protocol, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Server", id)
				echo(w, r)
			})
		}
		first := serving(t, name, 0, server("first"))
		c := newClient(t, protocol, true)
		ask := func() string { return c.mustAsk(t, first.address).Get("Server") }
		require.Equal(t, "first", ask())
		second := serving(t, name, 0, server("second"))
		receive(t, first.Replaced())
		assert.Equal(t, os.Getpid(), second.Predecessor())
		assert.Empty(t, first.ends[0], "it waits")
		assert.Equal(t, "first", ask())
		eventually(func() bool { return ask() == "second" })
		first.ended(t) // that was its last connection
	})
}

// An upgrade needs the header Connection for itself.
func TestUpgradeKeepsItsConnectionHeader(t *testing.T) {
	t.Parallel()
	name := newName(t)
	headers := make(chan string, 1)
	s := serving(t, name, 0, newServer("HTTP/1.1", func(w http.ResponseWriter, _ *http.Request) { headers <- w.Header().Get("Connection") }))
	plain, upgrade := connect(t, s.address), connect(t, s.address)
	ask := func(c conn, more string) string {
		c.write("GET / HTTP/1.1\r\nHost: test\r\n" + more + "\r\n")
		c.answer()
		return receive(t, headers)
	}
	assert.Empty(t, ask(plain, "")+ask(upgrade, ""))
	serving(t, name, 0, echoServer())
	eventually(func() bool { return ask(plain, "") == "close" })
	assert.Empty(t, ask(upgrade, "Connection: upgrade\r\nUpgrade: websocket\r\n"))
	assert.Equal(t, "close", ask(upgrade, ""))
	s.ended(t)
}

func TestStopClosesIdleConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	s := serving(t, "", 0, newServer("HTTP/1.1", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-end
		}
	}))
	slow, idle := connect(t, s.address), connect(t, s.address)
	slow.write("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
	idle.write(request)
	require.False(t, idle.answer())
	s.stop()
	_, err := io.ReadAll(idle)
	assert.NoError(t, err, "it is closed")
	close(end)
	slow.answer()
	s.ended(t)
}

// A gate is a listener that waits before and after it accepts.
type gate struct {
	net.Listener
	before, after chan struct{}
	accepted      chan struct{}
	onClose       func()
}

// newGate puts a gate before the first listener of a service.
func newGate(t testing.TB, name string) (*process, *gate) {
	s := open(t, name)
	g := &gate{s.listeners[0], make(chan struct{}, 10), make(chan struct{}, 10), make(chan struct{}, 10), func() {}}
	s.listeners[0] = g
	return s, g
}

func (g *gate) Accept() (net.Conn, error) {
	<-g.before
	c, err := g.Listener.Accept()
	if err == nil {
		g.accepted <- struct{}{}
		<-g.after
	}
	return c, err
}

func (g *gate) Close() error {
	g.onClose()
	return g.Listener.Close()
}

// Accept returns it when the listener has been closed.
func TestLastAcceptedConnectionIsAnswered(t *testing.T) {
	t.Parallel()
	name := newName(t)
	srv := echoServer()
	shutdown := make(chan struct{})
	srv.RegisterOnShutdown(func() { close(shutdown) })
	s, g := newGate(t, name)
	close(g.before)
	g.onClose = sync.OnceFunc(func() {
		time.AfterFunc(50*time.Millisecond, func() { close(g.after) }) // time for a Shutdown that does not wait
	})
	s.serve(t, 0, srv)
	s.ready(t)
	c := connect(t, s.address)
	c.write(request)
	receive(t, g.accepted)
	serving(t, name, 0, echoServer())
	c.answer()
	s.ended(t)
	receive(t, shutdown)
}

// A listener accepts one connection at a time, and an idle one is there.
func TestStopAnswersWhatIsQueuedBehindALimit(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("listeners cannot be hidden here, so what is queued is lost")
	}
	s, g := newGate(t, "")
	close(g.after)
	g.before <- struct{}{}
	srv := echoServer()
	srv.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			g.before <- struct{}{}
		}
	}
	s.serve(t, 0, srv)
	s.ready(t)
	idle, queued := connect(t, s.address), connect(t, s.address)
	idle.write(request)
	idle.answer()
	queued.write(request)
	s.stop()
	queued.answer()
	s.ended(t)
}

// As netutil.LimitListener does when it is full.
func TestAcceptThatWaitsForOtherThingsDoesNotKeepServe(t *testing.T) {
	t.Parallel()
	name := newName(t)
	s, g := newGate(t, name)
	g.onClose = sync.OnceFunc(func() { close(g.before) })
	s.serve(t, 0, echoServer())
	s.ready(t)
	serving(t, name, 0, echoServer())
	receive(t, s.Replaced())
	s.ended(t)
}

// A connection that has been accepted is new until its first header is complete.
func TestNewConnectionsAreAnswered(t *testing.T) {
	inBothWays(t, func(t *testing.T, name string, leave func(*process)) {
		srv := echoServer()
		accepted := make(chan struct{}, 1000)
		srv.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				accepted <- struct{}{}
			}
		}
		s := serving(t, name, 0, srv)
		var clients []conn
		for i := range 20 {
			c := connect(t, s.address)
			c.write(request[:i]) // the first sends nothing
			clients = append(clients, c)
			receive(t, accepted)
		}
		leave(s)
		for i, c := range clients {
			c.write(request[i:])
			for !c.answer() { // the server may not know yet that it leaves
				c.write(request)
			}
		}
		s.ended(t)
	})
}

func TestHandlerThatNeverReturnsIsAnError(t *testing.T) {
	inBothWays(t, func(t *testing.T, name string, leave func(*process)) {
		entered, never := make(chan struct{}), make(chan struct{})
		defer close(never)
		s := serving(t, name, 50*time.Millisecond, newServer("HTTP/1.1", func(http.ResponseWriter, *http.Request) {
			close(entered)
			<-never
		}))
		connect(t, s.address).write(request)
		receive(t, entered)
		leave(s)
		assert.ErrorIs(t, receive(t, s.ends[0]), context.DeadlineExceeded)
	})
}

// When it is replaced, Serve waits until grace ends. When it is stopped, for 5 seconds.
func TestClientThatSendsNothingIsNoError(t *testing.T) {
	inBothWays(t, func(t *testing.T, name string, leave func(*process)) {
		grace := time.Minute
		if name != "" {
			grace = 50 * time.Millisecond
		}
		srv := echoServer()
		states := make(chan http.ConnState, 1000)
		srv.ConnState = func(_ net.Conn, s http.ConnState) { states <- s }
		s := serving(t, name, grace, srv)
		c := connect(t, s.address)
		assert.Equal(t, http.StateNew, receive(t, states))
		leave(s)
		s.ended(t)
		_, err := c.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
	})
}

func TestHijackedConnectionsAreTheHandlers(t *testing.T) {
	inBothWays(t, func(t *testing.T, name string, leave func(*process)) {
		hijacked := make(chan net.Conn, 1)
		s := serving(t, name, 0, newServer("HTTP/1.1", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			assert.NoError(t, err)
			hijacked <- c
		}))
		client := connect(t, s.address)
		client.write(request)
		c := receive(t, hijacked)
		defer c.Close()
		leave(s)
		s.ended(t) // it does not wait
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		assert.NoError(t, err)
		client.answer()
	})
}

func TestHandlerAndHooksAreKept(t *testing.T) {
	t.Parallel()
	path := "/" + rand.Text()
	http.HandleFunc(path, func(http.ResponseWriter, *http.Request) {}) // a nil Handler is DefaultServeMux
	states, bases := make(chan http.ConnState, 10), make(chan net.Listener, 10)
	s := serving(t, "", 0, &http.Server{
		ConnState:   func(_ net.Conn, s http.ConnState) { states <- s },
		BaseContext: func(l net.Listener) context.Context { bases <- l; return t.Context() },
	})
	c := connect(t, s.address)
	c.write("GET " + path + " HTTP/1.0\r\n\r\n")
	c.answer()
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateClosed} {
		assert.Equal(t, want, receive(t, states))
	}
	assert.Equal(t, s.listeners[0], receive(t, bases))
	assert.Empty(t, bases)
}

func TestCertificatesMakeTLS(t *testing.T) {
	t.Parallel()
	cert := certificate()
	own := &tls.Config{Certificates: []tls.Certificate{cert}}
	for _, c := range []struct {
		config   *tls.Config
		protocol string
	}{
		{&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }}, "TLS"},
		{&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil }}, "TLS"},
		{&tls.Config{}, "HTTP/1.1"},
	} {
		srv := echoServer()
		srv.TLSConfig = c.config
		newClient(t, c.protocol, false).mustAsk(t, serving(t, "", 0, srv).address)
	}
}

// A Shutdown ends one server. Drain, which another Serve may call, ends all.
func TestServersOfOneProcess(t *testing.T) {
	t.Parallel()
	first := echoServer()
	s := serving(t, "", 0, first, echoServer())
	for _, l := range s.listeners {
		serves(t, l.Addr().String())
	}
	require.NoError(t, first.Shutdown(t.Context()))
	assert.ErrorIs(t, receive(t, s.ends[0]), http.ErrServerClosed)
	serves(t, s.listeners[1].Addr().String())
	_ = s.Drain(t.Context()) // unsupported on some systems
	assert.NoError(t, receive(t, s.ends[1]))
}

// The running process serves on. After Ready it would be too late to find that a server
// cannot serve.
func TestServerThatFailsTakesNothing(t *testing.T) {
	t.Parallel()
	name := newName(t)
	now := serving(t, name, 0, echoServer())
	run := func(limit time.Duration, s handoverhttp.Server) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return s.Run(ctx)
	}
	const long, short = 20 * time.Second, 50 * time.Millisecond
	shut, taken := echoServer(), echoServer()
	require.NoError(t, shut.Close())
	taken.Addr = now.address
	ciphers := newServer("TLS", echo)
	ciphers.TLSConfig.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA} // not enough for HTTP/2
	assert.ErrorIs(t, run(long, handoverhttp.Server{Name: name, HTTP: shut}), http.ErrServerClosed)
	assert.Error(t, run(long, handoverhttp.Server{Name: name, HTTP: ciphers}))
	var op *net.OpError
	assert.ErrorAs(t, run(long, handoverhttp.Server{HTTP: taken}), &op)
	assert.ErrorIs(t, run(long, handoverhttp.Server{Name: "a/b", HTTP: echoServer()}), os.ErrInvalid)
	assert.ErrorIs(t, run(long, handoverhttp.Server{Socket: reuse.Config{Exclusive: reuse.On, Port: reuse.On}, HTTP: echoServer()}), reuse.ErrConflict)
	assert.ErrorIs(t, run(0, handoverhttp.Server{HTTP: echoServer()}), context.DeadlineExceeded)
	next := open(t, name) // is about to succeed now
	assert.ErrorIs(t, run(short, handoverhttp.Server{Name: name, HTTP: echoServer()}), context.DeadlineExceeded)
	assert.ErrorContains(t, handoverhttp.Serve(t.Context(), next.Process, echoServer(), 0), "no listener")
	serves(t, now.address)
}
