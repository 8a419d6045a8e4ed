//go:build linux

package soak

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/reuse/internal/term"
)

// clients of a load, each of which waits up to think before each request.
const (
	clients = 16
	think   = 20 * time.Millisecond
)

// A load is clients, each of which sends one request after the other. No request is sent
// again.
type load struct {
	service
	to      string // the address as clients have it
	cancel  context.CancelFunc
	running sync.WaitGroup
	rest    sync.RWMutex // locked, it stops the clients between two requests

	mu         sync.Mutex
	sent, lost int
	reasons    map[string]int
	answers    map[int]int // by server
}

// startLoad starts the clients. With keep, every fourth TCP or Unix client sends a hundred
// requests on a connection, and otherwise each has a connection of its own.
func startLoad(s service, to string, keep bool) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{service: s, to: to, cancel: cancel, reasons: map[string]int{}, answers: map[int]int{}}
	for i := range clients {
		l.running.Go(func() {
			c := client{load: l, keep: s.Network == "udp" || keep && i%4 == 0}
			defer c.hangUp()
			for ctx.Err() == nil {
				time.Sleep(rand.N(think))
				l.one(&c)
			}
		})
	}
	return l
}

// end ends the clients. Nothing changes the load after that.
func (l *load) end() {
	l.cancel()
	l.running.Wait()
}

// now returns the number of requests lost so far.
func (l *load) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// one sends a request and counts its result.
func (l *load) one(c *client) {
	l.rest.RLock()
	defer l.rest.RUnlock()
	server, err := c.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.lost++
		l.reasons[term.Reason(err)]++
		return
	}
	l.answers[server]++
}

// A client has at most one connection.
type client struct {
	*load
	keep bool
	conn net.Conn
	in   *bufio.Reader
	n    int // requests
}

// ask sends one request and returns the server that answered.
func (c *client) ask() (server int, err error) {
	c.n++
	defer func() {
		if err != nil || !c.keep || c.n%100 == 0 {
			c.hangUp()
		}
	}()
	if c.conn == nil {
		d := net.Dialer{Timeout: patience, KeepAlive: -1}
		conn, err := d.Dial(c.Network, c.to)
		if err != nil {
			return 0, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
		if !c.keep { // the server waits for the request, perhaps until after a hand-over
			time.Sleep(rand.N(think))
		}
	}
	ask, timeout := c.askHTTP, patience
	if c.Network == "udp" {
		ask, timeout = c.askDatagram, 5*time.Second // nothing reports a lost datagram
	}
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	return ask()
}

func (c *client) askHTTP() (server int, err error) {
	if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: soak\r\n\r\n"); err != nil {
		return 0, err
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	if r.Close {
		c.hangUp()
	}
	return strconv.Atoi(string(body))
}

func (c *client) askDatagram() (server int, err error) {
	question := strconv.Itoa(c.n)
	if _, err := io.WriteString(c.conn, question); err != nil {
		return 0, err
	}
	b := make([]byte, 100)
	for {
		n, err := c.conn.Read(b)
		if err != nil {
			return 0, err
		}
		if text, ok := strings.CutPrefix(string(b[:n]), question+" "); ok { // not a late answer to another question
			return strconv.Atoi(text)
		}
	}
}

// hangUp closes the connection, with a reset, which leaves no port in TIME_WAIT.
func (c *client) hangUp() {
	if c.conn == nil {
		return
	}
	if t, ok := c.conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.conn.Close()
	c.conn = nil
}
