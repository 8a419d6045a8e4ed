package handoverhttp_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(w, r.Body) // the client reports an error
}

func echoServer() *http.Server { return newServer("HTTP/1.1", echo) }

func eachProtocol(t *testing.T, test func(t *testing.T, protocol string)) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "TLS", "HTTP/2", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			test(t, protocol)
		})
	}
}

func isTLS(protocol string) bool   { return protocol == "TLS" || protocol == "HTTP/2" }
func isHTTP2(protocol string) bool { return protocol == "h2c" || protocol == "HTTP/2" }

func newServer(protocol string, h http.HandlerFunc) *http.Server {
	srv := &http.Server{Addr: "127.0.0.1:0", Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	switch {
	case isTLS(protocol):
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	case protocol == "h2c":
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	return srv
}

// certificate returns that of package httptest.
func certificate() tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates[0]
}

// A client makes a connection for each request, or keeps one.
type client struct {
	*http.Client
	protocol string
}

func newClient(t testing.TB, protocol string, keep bool) client {
	tr := &http.Transport{
		DisableKeepAlives: !keep,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		Protocols:         new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(!isHTTP2(protocol))
	tr.Protocols.SetHTTP2(protocol == "HTTP/2")
	tr.Protocols.SetUnencryptedHTTP2(protocol == "h2c")
	t.Cleanup(tr.CloseIdleConnections)
	return client{&http.Client{Transport: tr, Timeout: 20 * time.Second}, protocol}
}

// ask sends a request to a server that runs echo. Over HTTP/1.1 it is one that net/http
// never sends twice.
func (c client) ask(address string) (http.Header, error) {
	scheme := "http://"
	if isTLS(c.protocol) {
		scheme = "https://"
	}
	text := rand.Text()
	var body io.Reader = strings.NewReader(text)
	if !isHTTP2(c.protocol) {
		body = io.MultiReader(body)
	}
	a, err := c.Post(scheme+address, "text/plain", body)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	got, err := io.ReadAll(a.Body)
	if err == nil && string(got) != text {
		err = fmt.Errorf("%s: %q for %q", a.Status, got, text)
	}
	return a.Header, err
}

func (c client) mustAsk(t testing.TB, address string) http.Header {
	t.Helper()
	h, err := c.ask(address)
	require.NoError(t, err)
	return h
}

// serves fails a test unless a server that runs echo answers.
func serves(t testing.TB, address string) {
	t.Helper()
	newClient(t, "HTTP/1.1", false).mustAsk(t, address)
}

// A process is one process of a service, in this process of the system.
type process struct {
	*handover.Process
	listeners []net.Listener
	address   string // of the first
	stop      context.CancelFunc
	ends      []chan error
}

// newName returns a Name of this test's own. It skips the test where there are none.
func newName(t testing.TB) string {
	t.Helper()
	s := name("http-" + rand.Text())
	if s == "" {
		t.Skip("this system passes no sockets between processes")
	}
	return s
}

// run runs a server in a goroutine of its own, as another process would, and returns its
// address when it has become current.
func run(t testing.TB, protocol, name string) (address string, stop context.CancelFunc, end <-chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	ready, ended := make(chan string, 1), make(chan error, 1)
	s := handoverhttp.Server{HTTP: newServer(protocol, echo), Name: name}
	s.OnReady = func(_ *handover.Process, l net.Listener) { ready <- l.Addr().String() }
	go func() { ended <- s.Run(ctx) }()
	return receive(t, ready), stop, ended
}

// open takes over, or opens, two sockets of a service.
func open(t testing.TB, name string) *process {
	t.Helper()
	p, err := handover.Config{Name: name}.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	s := &process{Process: p}
	for range 2 {
		l, err := p.Listen(t.Context(), reuse.Config{}, "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		s.listeners = append(s.listeners, l)
	}
	s.address = s.listeners[0].Addr().String()
	return s
}

// serve serves the sockets in their order, and is over when the test ends.
func (s *process) serve(t testing.TB, grace time.Duration, servers ...*http.Server) {
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	for i, srv := range servers {
		end := make(chan error, 1)
		s.ends = append(s.ends, end)
		go func() { end <- handoverhttp.Serve(ctx, s.Process, srv, grace, s.listeners[i]) }()
	}
	t.Cleanup(s.stop)
}

// serving is a process with servers that is current.
func serving(t testing.TB, name string, grace time.Duration, servers ...*http.Server) *process {
	t.Helper()
	s := open(t, name)
	s.serve(t, grace, servers...)
	s.ready(t)
	return s
}

func (s *process) ready(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Ready(t.Context()))
}

// ended waits until no server is left, and wants no error.
func (s *process) ended(t testing.TB) {
	t.Helper()
	for _, end := range s.ends {
		assert.NoError(t, receive(t, end))
	}
}

// inBothWays runs a test of a server that is stopped and of one that is replaced: by
// leave, which returns when the process has closed its listeners.
func inBothWays(t *testing.T, test func(t *testing.T, name string, leave func(*process))) {
	t.Parallel()
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		test(t, "", func(s *process) {
			s.stop()
			eventually(func() bool {
				c, err := net.Dial("tcp", s.address)
				if err == nil {
					c.Close()
				}
				return err != nil
			})
		})
	})
	t.Run("replaced", func(t *testing.T) {
		t.Parallel()
		name := newName(t)
		test(t, name, func(s *process) {
			serving(t, name, 0, echoServer())
			receive(t, s.Replaced())
		})
	})
}

func receive[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing happens")
	}
	return v
}

// eventually returns when f does true. The limit is that of the test binary.
func eventually(f func() bool) {
	for !f() {
		time.Sleep(time.Millisecond) // leaves the processor to others
	}
}

// A conn is a client's connection of HTTP/1.1.
type conn struct {
	net.Conn
	t testing.TB
}

func connect(t testing.TB, address string) conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return conn{c, t}
}

const request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

func (c conn) write(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(c.t, err)
}

// answer reads an answer, which must not fail, and tells whether the server closes.
func (c conn) answer() (closes bool) {
	c.t.Helper()
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(c.t, err)
	_, err = io.Copy(io.Discard, a.Body)
	require.NoError(c.t, errors.Join(err, a.Body.Close()))
	assert.Equal(c.t, http.StatusOK, a.StatusCode)
	return a.Close
}
