package servers

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

const grace = 20 * time.Second

func serveHTTP(ctx context.Context, p *handover.Process, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // h2c
	return handoverhttp.Serve(ctx, p, srv, grace, l)
}

func serveHTTPS(ctx context.Context, p *handover.Process, l net.Listener, h http.Handler, c tls.Certificate) error {
	srv := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{c}}} // also HTTP/2
	return handoverhttp.Serve(ctx, p, srv, grace, l)
}

func serveEvents(ctx context.Context, p *handover.Process, l net.Listener, event func(http.ResponseWriter) error) error {
	left := left(ctx, p)
	return handoverhttp.Serve(ctx, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event(w) == nil && http.NewResponseController(w).Flush() == nil {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-left.Done(): // the client connects again, to the next process
				return
			}
		}
	})}, grace, l)
}

func serveWebSocket(ctx context.Context, p *handover.Process, l net.Listener, talk func(context.Context, *websocket.Conn)) error {
	left := left(ctx, p)
	var open sync.WaitGroup // Serve does not wait for hijacked connections
	err := handoverhttp.Serve(ctx, p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Done()
		if c, err := websocket.Accept(w, r, nil); err == nil {
			defer context.AfterFunc(left, func() { c.Close(websocket.StatusServiceRestart, "connect again") })()
			talk(r.Context(), c)
		}
	})}, grace, l)
	open.Wait()
	return err
}

var slowly = strings.Repeat("hello", 10)

// hello answers with what it is sent, and at /slow with slowly in 50 ms.
func hello() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		for range 10 {
			fmt.Fprint(w, "hello")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	})
	return mux
}

func echoMessages(ctx context.Context, c *websocket.Conn) {
	for {
		kind, b, err := c.Read(ctx)
		if err != nil || c.Write(ctx, kind, b) != nil {
			return
		}
	}
}

// post returns a client that sends "hello" and expects an answer. Its requests are not sent
// twice, except those that HTTP/2 says have not been looked at.
func post(url, want string, configure func(*http.Transport)) func() func() error {
	return func() func() error {
		client := newClient(configure)
		return func() error { return postOnce(client, url, want) }
	}
}

func newClient(configure func(*http.Transport)) *http.Client {
	tr := &http.Transport{TLSClientConfig: clientTLS(), IdleConnTimeout: time.Second} // so that the last process can exit
	configure(tr)
	return &http.Client{Transport: tr, Timeout: patience}
}

func fresh(tr *http.Transport) { tr.DisableKeepAlives = true } // a connection for each request
func kept(*http.Transport)     {}
func http2(tr *http.Transport) { tr.Protocols = new(http.Protocols); tr.Protocols.SetHTTP2(true) }
func h2c(tr *http.Transport) {
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
}

func postOnce(client *http.Client, url, want string) error {
	r, err := client.Post(url, "text/plain", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return expect(want)(io.ReadAll(r.Body))
}

var errAnswer = errors.New("wrong answer")

// expect compares an answer.
func expect(want string) func([]byte, error) error {
	return func(b []byte, err error) error {
		if err == nil && string(b) != want {
			err = fmt.Errorf("%w: %q instead of %q", errAnswer, b, want)
		}
		return err
	}
}

func TestNetHTTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		row, server, url string // without the address
		configure        func(*http.Transport)
	}{
		{"net/http, HTTP/1.1, a connection for each request", "http", "http://%s", fresh},
		{"net/http, HTTP/1.1, kept connections", "http", "http://%s", kept},
		{"net/http, HTTP/1.1, TLS", "https", "https://%s", kept},
		{"net/http, HTTP/2", "https", "https://%s", http2},
		{"net/http, h2c", "http", "http://%s", h2c},
		{"net/http, responses of 50 ms", "http", "http://%s/slow", kept},
		{"tls.NewListener", "tls", "https://%s", kept},
		{"netutil.LimitListener", "limit", "http://%s", kept},
		{"go-proxyproto", "proxyproto", "http://%s", dialProxy},
		{"cmux, HTTP/1.1, a connection for each request", "cmux", "http://%s", fresh},
		{"cmux, HTTP/1.1, kept connections", "cmux", "http://%s", kept},
		{"fasthttp, a connection for each request", "fasthttp", "http://%s", fresh},
		{"fasthttp, kept connections", "fasthttp", "http://%s", kept},
	} {
		t.Run(c.row, func(t *testing.T) {
			t.Parallel()
			s := start(t, c.server)
			want := "hello"
			if strings.HasSuffix(c.url, "/slow") {
				s.each, want = 5, slowly
			}
			url := fmt.Sprintf(c.url, s.tcp)
			r, err := newClient(c.configure).Get(url)
			require.NoError(t, err)
			r.Body.Close()
			assert.Equal(t, strings.Contains(c.row, "HTTP/2") || strings.Contains(c.row, "h2c"), r.ProtoMajor == 2)
			underLoad(t, s, c.row, post(url, want, c.configure))
		})
	}
}

// An event stream ends with the process, in the way that HTTP ends a response.
func TestNetHTTPEvents(t *testing.T) {
	t.Parallel()
	s := start(t, "events")
	underLoad(t, s, "net/http, Server-Sent Events", func() func() error {
		client := newClient(kept)
		var lines *bufio.Reader
		return func() error { // one event
			for {
				if lines == nil {
					r, err := client.Get("http://" + s.tcp)
					if err != nil {
						return err
					}
					lines = bufio.NewReader(r.Body)
				}
				line, err := lines.ReadString('\n')
				switch {
				case errors.Is(err, io.EOF): // connect again
					lines = nil
				case err != nil || strings.HasPrefix(line, "data: "):
					return err
				case line != "\n":
					return fmt.Errorf("%w: %q", errAnswer, line)
				}
			}
		}
	})
}

// A WebSocket is told to connect again.
func TestNetHTTPWebSocket(t *testing.T) {
	t.Parallel()
	s := start(t, "websocket")
	underLoad(t, s, "net/http, WebSocket", func() func() error {
		var conn *websocket.Conn
		return func() error {
			ctx, cancel := patient()
			defer cancel()
			for {
				if conn == nil {
					c, _, err := websocket.Dial(ctx, "ws://"+s.tcp, nil)
					if err != nil {
						return err
					}
					conn = c
				}
				err := conn.Write(ctx, websocket.MessageText, []byte("hello"))
				if err == nil {
					var b []byte
					if _, b, err = conn.Read(ctx); err == nil {
						return expect("hello")(b, nil)
					}
				} else {
					_, _, err = conn.Read(ctx) // why
				}
				if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
					return err
				}
				conn = nil
			}
		}
	})
}

// A full LimitListener does not keep the process from being replaced, and its request is
// answered.
func TestLimitListenerFull(t *testing.T) {
	t.Parallel()
	s := start(t, "limit1")
	client := newClient(fresh)
	r, err := client.Get("http://" + s.tcp + "/slow")
	require.NoError(t, err)
	defer r.Body.Close()
	waiting, err := net.Dial("tcp", s.tcp) // in the queue
	require.NoError(t, err)
	defer waiting.Close()
	require.NoError(t, waiting.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(waiting, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
	require.NoError(t, err)
	old := s.succeed()
	got, err := http.ReadResponse(bufio.NewReader(waiting), nil)
	require.NoError(t, err)
	assert.NoError(t, expect("hello")(io.ReadAll(got.Body)))
	assert.NoError(t, expect(slowly)(io.ReadAll(r.Body)))
	old.mustExit(t)
}
