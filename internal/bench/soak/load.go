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
	"slices"
	"strconv"
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

	address   string
	processes []*process // all that were started
	begin     time.Time
	phase     atomic.Int32
	since     atomic.Int64 // when the phase began, after begin
	sent      atomic.Int64
	rest      sync.RWMutex // the load rests while this is locked

	mu       sync.Mutex
	answered map[uint32]int // by generation
	result
}

type result struct {
	sent, lost, restarts int
	losses               []string // the first of them, and when
	takeOver, drain      []time.Duration
	used                 []resources // of the one process, after each restart
	latency              [phases][]time.Duration
}

// run restarts the server until there were as many connections and restarts as
// there should be.
func (s *soak) run(ctx context.Context) (result, error) {
	s.answered = map[uint32]int{}
	s.begin = time.Now()
	s.address = addresses[s.network]
	defer func() {
		for _, p := range s.processes {
			p.kill() // after an error
		}
	}()
	running, err := s.open(0)
	if err != nil {
		return s.result, err
	}

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
			running, err = s.restart(ctx, running)
			if err == nil && s.shape.plain {
				running, err = s.putBack(running)
			}
			if err != nil {
				return err
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
	return r, s.check(r, s.processes)
}

// A generation is the processes that serve at a time.
type generation []*process

// members is the number of all their listeners.
func (g generation) members() (n int) {
	for _, p := range g {
		n += p.size
	}
	return n
}

// stop has all of them drain or close at the same time, and says how long the
// slowest took.
func (g generation) stop(command string) (time.Duration, error) {
	took, errs := make([]time.Duration, len(g)), make([]error, len(g))
	var stops sync.WaitGroup
	for i, p := range g {
		stops.Go(func() { took[i], errs[i] = p.stop(command) })
	}
	stops.Wait()
	return slices.Max(took), errors.Join(errs...)
}

// open starts a generation that is the only one, or the old one to be.
func (s *soak) open(restart int) (generation, error) {
	sizes := s.sizes(restart)
	if s.shape.plain {
		sizes = []int{0}
	}
	g, err := s.start(sizes)
	if err != nil {
		return nil, err
	}
	s.address, _, err = s.listen(g, false)
	return g, err
}

// sizes are the numbers of listeners, of each process of a generation.
func (s *soak) sizes(restart int) []int {
	n := s.shape.sizes[restart%len(s.shape.sizes)]
	if s.shape.split {
		return slices.Repeat([]int{1}, n)
	}
	return []int{n}
}

// start starts the processes of a generation, which do not listen yet.
func (s *soak) start(sizes []int) (g generation, err error) {
	for _, size := range sizes {
		p, err := start(s.network, size, len(s.processes)+1)
		if err != nil {
			return nil, err
		}
		g = append(g, p)
		s.processes = append(s.processes, p)
	}
	return g, nil
}

// listen has all listen, and the last take over. It returns where they listen, and
// how long that took.
func (s *soak) listen(g generation, takeOver bool) (address string, took time.Duration, err error) {
	address = s.address
	for i, p := range g {
		if takeOver && i == len(g)-1 {
			address, took, err = p.listen("takeover", address, strconv.Itoa(g.members()))
		} else {
			address, took, err = p.listen("listen", address)
		}
		if err != nil {
			return "", 0, err
		}
	}
	return address, took, nil
}

// restart replaces the running generation by the next.
func (s *soak) restart(ctx context.Context, old generation) (next generation, err error) {
	s.result.restarts++
	if s.shape.inside && s.handover {
		return old, s.replace(ctx, old[0])
	}
	s.enter(starting)
	if next, err = s.start(s.sizes(s.result.restarts)); err != nil {
		return nil, err
	}
	stop := "drain"
	if !s.handover {
		stop = "close"
	}
	s.enter(handing)
	_, took, err := s.listen(next, s.handover)
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

// replace has a process hand over to itself.
func (s *soak) replace(ctx context.Context, p *process) error {
	s.enter(handing)
	took, drained, used, err := p.replace(s.address, s.sizes(s.result.restarts)[0])
	if err != nil {
		return err
	}
	s.takeOver = append(s.takeOver, took)
	s.drain = append(s.drain, drained)
	s.used = append(s.used, used)
	s.enter(settling)
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	s.enter(quiet)
	return nil
}

// putBack replaces a group by a plain listener, while the load rests.
func (s *soak) putBack(running generation) (generation, error) {
	s.rest.Lock()
	defer s.rest.Unlock()
	if _, err := running.stop("close"); err != nil {
		return nil, err
	}
	return s.open(s.result.restarts)
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
	generation, err := ask(s.network, s.target())
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

// target is where to connect to: on a wildcard address of both families, either.
func (s *soak) target() string {
	if s.network != "tcp" {
		return s.address
	}
	_, port, _ := net.SplitHostPort(s.address) // as a listener has it
	return net.JoinHostPort([]string{"127.0.0.1", "::1"}[rand.N(2)], port)
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
	defer func() { _ = c.(*net.TCPConn).SetLinger(0) }()
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
