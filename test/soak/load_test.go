//go:build linux

package soak

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockopt"
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
	to         string // the address as clients have it
	cancel     context.CancelFunc
	running    sync.WaitGroup
	restarting atomic.Bool
	rest       sync.RWMutex // locked, it stops the clients between two requests

	mu         sync.Mutex
	sent, lost int
	reasons    map[string]int
	answers    map[int]int        // by server
	took       [2][]time.Duration // in quiet, and while a restart was under way at the begin or the end
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
	restarting := l.restarting.Load()
	server, took, err := c.ask()
	restarting = restarting || l.restarting.Load()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.lost++
		l.reasons[term.Reason(err)]++
		return
	}
	l.answers[server]++
	if restarting {
		l.took[1] = append(l.took[1], took)
	} else {
		l.took[0] = append(l.took[0], took)
	}
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
func (c *client) ask() (server int, took time.Duration, err error) {
	c.n++
	begin := time.Now()
	defer func() {
		took = time.Since(begin)
		if err != nil || !c.keep || c.n%100 == 0 {
			c.hangUp()
		}
	}()
	if c.conn == nil {
		d := net.Dialer{Timeout: patience, KeepAlive: -1}
		if c.Option == unix.TCP_FASTOPEN { // the request travels with the SYN
			d.Control = control(unix.TCP_FASTOPEN_CONNECT, 1)
		}
		conn, err := d.Dial(c.Network, c.to)
		if err != nil {
			return 0, 0, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
		if !c.keep { // the server waits for the request, perhaps until after a hand-over
			pause := rand.N(think)
			time.Sleep(pause)
			begin = begin.Add(pause)
		}
	}
	ask, timeout := c.askHTTP, patience
	if c.Network == "udp" {
		ask, timeout = c.askDatagram, 5*time.Second // nothing reports a lost datagram
	}
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, 0, err
	}
	server, err = ask()
	return server, 0, err
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

// control returns a Control function that sets an option of TCP; nil for option 0.
func control(option, value int) func(_, _ string, rc syscall.RawConn) error {
	if option == 0 {
		return nil
	}
	return func(_, _ string, rc syscall.RawConn) error {
		return sockopt.Control(rc, func(fd uintptr) error { return sockopt.Set(fd, unix.IPPROTO_TCP, option, value) })
	}
}

// p99 returns the time in ms that 99% took at most, and sorts the list.
func p99(list []time.Duration) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)*99/100].Seconds() * 1000
}
