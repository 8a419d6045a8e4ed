package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"example.com/reuse/internal/term"
)

// A phase is what goes on while a connection is made. One that sees several counts
// for the last of them in this order.
type phase int32

const (
	quiet    phase = iota
	settling       // the newcomer takes the steering away
	starting       // a process starts, and does not listen yet
	handing        // from then until the old process has ended
	phases
)

func (p phase) String() string { return [...]string{"quiet", "settling", "starting", "hand-over"}[p] }

// settle is long enough for the newcomer to take the steering away.
const settle = 30 * time.Millisecond

// A soak is of one configuration in one mode.
type soak struct {
	options
	screen      *term.Screen
	handover    bool
	network     string
	shape       shape
	connections int
	restarts    int

	address string
	begin   time.Time
	phase   atomic.Int32
	since   atomic.Int64 // when the phase began, after begin
	sent    atomic.Int64
	rest    sync.RWMutex // the load rests while this is locked

	mu       sync.Mutex
	answered map[uint32]int // by generation
	result
}

type result struct {
	sent, lost, restarts int
	losses               []string // the first of them, and when
	takeOver, drain      []time.Duration
	latency              [phases][]time.Duration
}

// run restarts the server until there were as many connections and restarts as
// there should be.
func (s *soak) run(ctx context.Context) (result, error) {
	s.answered = map[uint32]int{}
	s.begin = time.Now()
	s.address = addresses[s.network]
	running, err := s.open(1, 0)
	if err != nil {
		return s.result, err
	}
	processes := []*process{running}
	defer func() {
		for _, p := range processes {
			p.kill() // after an error
		}
	}()

	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var clients sync.WaitGroup
	for range s.clients {
		clients.Go(func() { s.load(loading) })
	}
	err = func() error {
		for s.result.restarts < s.restarts || int(s.sent.Load()) < s.connections {
			if err := sleep(ctx, s.every); err != nil {
				return err
			}
			next, err := s.restart(ctx, running)
			if next != nil {
				processes = append(processes, next)
			}
			if err != nil {
				return err
			}
			running = next
			if s.shape.plain {
				if next, err = s.putBack(running); err != nil {
					return err
				}
				processes = append(processes, next)
				running = next
			}
			s.draw()
		}
		return nil
	}()
	stopLoad()
	clients.Wait()
	if err != nil {
		return s.collect(), err
	}
	if _, err := running.stop("close"); err != nil {
		return s.collect(), err
	}
	r := s.collect()
	return r, s.check(r, processes)
}

// open starts a server that is the only one, or the old one to be.
func (s *soak) open(generation, restart int) (*process, error) {
	size := s.size(restart)
	if s.shape.plain {
		size = 0
	}
	p, err := start(s.network, s.address, size, generation)
	if err != nil {
		return nil, err
	}
	s.address, _, err = p.listen("listen")
	if err != nil {
		p.kill()
	}
	return p, err
}

func (s *soak) size(restart int) int { return s.shape.sizes[restart%len(s.shape.sizes)] }

// restart replaces the running server by the next.
func (s *soak) restart(ctx context.Context, old *process) (next *process, err error) {
	s.result.restarts++
	s.enter(starting)
	next, err = start(s.network, s.address, s.size(s.result.restarts), old.generation+1)
	if err != nil {
		return nil, err
	}
	listen, stop := "takeover", "drain"
	if !s.handover {
		listen, stop = "listen", "close"
	}
	s.enter(handing)
	_, took, err := next.listen(listen)
	if err != nil {
		return next, err
	}
	drained, err := old.stop(stop)
	if err != nil {
		return next, err
	}
	s.takeOver = append(s.takeOver, took)
	s.drain = append(s.drain, drained)
	s.enter(settling)
	if err := sleep(ctx, settle); err != nil {
		return next, err
	}
	s.enter(quiet)
	return next, nil
}

// putBack replaces a group by a plain listener, while the load rests.
func (s *soak) putBack(running *process) (*process, error) {
	s.rest.Lock()
	defer s.rest.Unlock()
	if _, err := running.stop("close"); err != nil {
		return nil, err
	}
	return s.open(running.generation+1, s.result.restarts)
}

func (s *soak) enter(p phase) {
	s.since.Store(int64(time.Since(s.begin)))
	s.phase.Store(int32(p))
}

// load is one client: it makes connections, one after the other.
func (s *soak) load(ctx context.Context) {
	var tick <-chan time.Time
	if s.rate > 0 {
		interval := time.Duration(s.clients) * time.Second / time.Duration(s.rate)
		if sleep(ctx, rand.N(interval)) != nil { // not all at once
			return
		}
		t := time.NewTicker(interval)
		defer t.Stop()
		tick = t.C
	}
	for ctx.Err() == nil {
		s.one()
		if tick != nil {
			select {
			case <-tick:
			case <-ctx.Done():
			}
		}
	}
}

// one makes a connection and counts what comes of it.
func (s *soak) one() {
	s.rest.RLock()
	defer s.rest.RUnlock()
	s.sent.Add(1)
	before := phase(s.phase.Load())
	begin := time.Now()
	generation, err := ask(s.network, s.address)
	took := time.Since(begin)
	after := phase(s.phase.Load())

	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.answered[generation]++
		p := max(before, after)
		s.latency[p] = append(s.latency[p], took)
		return
	}
	s.lost++
	if s.handover && len(s.losses) < 20 {
		s.losses = append(s.losses, fmt.Sprintf("lost at %v, after %v, %v to %v (for %v): %v",
			begin.Sub(s.begin), took, before, after, time.Since(s.begin)-time.Duration(s.since.Load()), err))
	}
}

// ask makes one connection with one request and returns the generation that
// answered.
func ask(network, address string) (generation uint32, err error) {
	d := net.Dialer{Timeout: patience, KeepAlive: -1}
	c, err := d.Dial(network, address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	// Closed with a reset, when the answer has been read or there is none, it leaves
	// no TIME_WAIT, and ports do not run out.
	defer c.(*net.TCPConn).SetLinger(0)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	b := make([]byte, 8)
	b[0] = request
	if _, err := c.Write(b[:1]); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, err
	}
	generation = binary.BigEndian.Uint32(b)
	if generation != binary.BigEndian.Uint32(b[4:]) {
		return 0, errors.New("not an answer")
	}
	return generation, nil
}

func (s *soak) collect() result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.sent = int(s.sent.Load())
	return s.result
}

// check compares what the clients have counted with what the servers have.
func (s *soak) check(r result, processes []*process) error {
	answered, served, odd := 0, 0, 0
	for _, p := range processes {
		n := s.answered[uint32(p.generation)]
		answered += n
		served += p.answered
		odd += p.odd
		if n > p.answered || p.answered-n > r.lost {
			return fmt.Errorf("the counts do not add up: server %d has answered %d, and clients have %d answers", p.generation, p.answered, n)
		}
	}
	if r.sent != answered+r.lost {
		return fmt.Errorf("the counts do not add up: %d sent, %d answered, %d lost", r.sent, answered, r.lost)
	}
	if odd > r.lost {
		return fmt.Errorf("the servers got %d connections without a request", odd)
	}
	return nil
}

// draw shows the progress: on a terminal in place, elsewhere a line now and then.
func (s *soak) draw() {
	s.mu.Lock()
	lost := s.lost
	s.mu.Unlock()
	sent := int(s.sent.Load())
	part := min(float64(s.result.restarts)/float64(s.restarts), float64(sent)/float64(s.connections))
	s.screen.Draw(fmt.Sprintf("%-7s %-8s %s %s, %s, %d lost", s.network, s.shape.name, s.screen.Bar(20, part),
		term.Count(s.result.restarts, "restart"), term.Count(sent, "connection"), lost))
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// system says what this runs on.
func system() string {
	text := fmt.Sprintf("user %d", os.Geteuid())
	for _, file := range []string{"kernel/osrelease", "net/ipv4/tcp_migrate_req", "net/ipv4/tcp_syncookies", "net/core/somaxconn"} {
		if b, err := os.ReadFile("/proc/sys/" + file); err == nil {
			text += fmt.Sprintf(", %s %s", path.Base(file), bytes.TrimSpace(b))
		}
	}
	return text
}
