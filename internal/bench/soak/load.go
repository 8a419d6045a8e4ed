//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A kind of request.
type kind int

const (
	fresh    kind = iota // on a connection of its own
	kept                 // on a connection that is kept
	datagram             // a hundred from one socket
	kinds
)

func (k kind) String() string { return [...]string{"fresh", "kept", "datagrams"}[k] }

// A load is clients, each of which sends one request after the other.
type load struct {
	service
	to      string // the address as clients have it
	stop    context.CancelFunc
	clients sync.WaitGroup

	restarting atomic.Bool
	gap        atomic.Int64 // odd while perhaps no process has the sockets
	rest       sync.RWMutex // the clients rest while it is locked

	mu     sync.Mutex
	counts [kinds]counts
	byPID  map[int]int // answers
}

type counts struct {
	sent, lost, lostInGap int
	reasons               map[string]int
	took                  [2][]time.Duration // in quiet, and if a restart was under way at the begin or the end
}

// newLoad starts the clients, which pause for a random time up to think.
func newLoad(s service, to string, clients [kinds]int, think time.Duration) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{service: s, to: to, stop: cancel, byPID: map[int]int{}}
	for k, n := range clients {
		l.counts[k].reasons = map[string]int{}
		for range n {
			l.clients.Go(func() {
				c := client{load: l, kind: kind(k)}
				defer c.hangUp()
				for ctx.Err() == nil {
					time.Sleep(rand.N(think + 1))
					l.one(&c)
				}
			})
		}
	}
	return l
}

// one sends a request and counts what comes of it.
func (l *load) one(c *client) {
	l.rest.RLock()
	defer l.rest.RUnlock()
	restarting, gap, begin := l.restarting.Load(), l.gap.Load(), time.Now()
	pid, err := c.ask()
	took := time.Since(begin)
	if err != nil {
		time.Sleep(time.Millisecond) // not a thousand refusals
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.counts[c.kind]
	n.sent++
	switch {
	case err == nil && (restarting || l.restarting.Load()):
		n.took[1] = append(n.took[1], took)
		l.byPID[pid]++
	case err == nil:
		n.took[0] = append(n.took[0], took)
		l.byPID[pid]++
	case gap%2 == 1 || gap != l.gap.Load():
		n.lostInGap++
	default:
		n.lost++
		n.reasons[reason(err)]++
	}
}

// now returns the counts; their maps and lists change.
func (l *load) now(k kind) counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[k]
}

func (l *load) answers(pid int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byPID[pid]
}

// reason is an error without the addresses, which differ each time.
func reason(err error) string {
	if oe := (*net.OpError)(nil); errors.As(err, &oe) {
		return oe.Op + ": " + oe.Err.Error()
	}
	return err.Error()
}

// A client has at most one connection.
type client struct {
	*load
	kind kind
	conn net.Conn
	in   *bufio.Reader
	n    int // requests
}

// ask sends one request, only once, and returns the process that answered.
func (c *client) ask() (pid int, err error) {
	c.n++
	defer func() {
		if err != nil || c.kind == fresh || c.kind == datagram && c.n%100 == 0 {
			c.hangUp()
		}
	}()
	if c.conn == nil {
		d := net.Dialer{Timeout: c.Patience, KeepAlive: -1, Control: c.control}
		conn, err := d.Dial(c.Network, c.to)
		if err != nil {
			return 0, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(c.Patience)); err != nil {
		return 0, err
	}
	if c.kind == datagram {
		return c.askDatagram()
	}
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

func (c *client) askDatagram() (pid int, err error) {
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
		if text, ok := strings.CutPrefix(string(b[:n]), question+" "); ok { // not an answer that came too late
			return strconv.Atoi(text)
		}
	}
}

// control has the first data travel with the SYN, if listeners have Fast Open.
func (c *client) control(_, _ string, rc syscall.RawConn) (err error) {
	if c.Option != unix.TCP_FASTOPEN {
		return nil
	}
	if e := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
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

// quantile returns the time in ms that the part q took at most, and sorts the list.
func quantile(list []time.Duration, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return float64(list[min(int(q*float64(len(list))), len(list)-1)]) / float64(time.Millisecond)
}

// report returns a line for each kind.
func (l *load) report() (text string) {
	for k := range kinds {
		n := &l.counts[k]
		if n.sent == 0 {
			continue
		}
		text += fmt.Sprintf("  %-9s %9d sent, %d lost; p99 %.2f ms", k, n.sent, n.lost, quantile(n.took[0], 0.99))
		if len(n.took[1]) > 0 {
			text += fmt.Sprintf(", restarting %.2f ms (%.2f)", quantile(n.took[1], 0.99), quantile(n.took[1], 0.99)/max(quantile(n.took[0], 0.99), 0.01))
		}
		text += "\n"
		for why, times := range n.reasons {
			text += fmt.Sprintf("    %d lost: %s\n", times, why)
		}
	}
	return text
}
