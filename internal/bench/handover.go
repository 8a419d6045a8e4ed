//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// serverEnv makes this program a server: of package handover or of tableflip.
const serverEnv = "REUSE_BENCH_SERVER"

// patience is how long anything may take before it counts as broken.
const patience = 20 * time.Second

const (
	handoverWay = "handover"
	flipWay     = "tableflip"
)

// serve is a server that says "ready PID" when new connections come to it,
// and "gone PID" when it has answered its last. The next server of package handover is
// started by the benchmark. SIGHUP has tableflip start it. A server also ends with
// standard input.
func serve(kind string, args []string) error {
	orders := make(chan os.Signal, 1)
	signal.Notify(orders, syscall.SIGHUP)
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	if len(args) != 1 {
		return errors.New("a server needs an address")
	}
	switch kind {
	case handoverWay:
		return serveHandover(args[0], over)
	case flipWay:
		return serveFlip(args[0], orders, over)
	}
	return fmt.Errorf("there is no server %q", kind)
}

func serveHandover(address string, over <-chan struct{}) error {
	ctx := context.Background()
	p, err := handover.Config{Name: fmt.Sprintf("bench-%d", os.Getppid())}.Start(ctx)
	if err != nil {
		return err
	}
	l, err := p.Listen(ctx, reuse.Config{}, "tcp4", address)
	if err != nil {
		return err
	}
	var a answerer
	served := make(chan error, 1)
	go func() { served <- a.accept(l) }()
	fmt.Println("ready", os.Getpid()) // before the old one may be gone
	if err := p.Ready(ctx); err != nil {
		return err
	}
	select {
	case <-p.Replaced():
	case <-over:
	}
	if err := p.Close(); err != nil {
		return err
	}
	return a.gone(served)
}

func serveFlip(address string, orders <-chan os.Signal, over <-chan struct{}) error {
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer upgrader.Stop()
	l, err := upgrader.Listen("tcp4", address)
	if err != nil {
		return err
	}
	var a answerer
	served := make(chan error, 1)
	go func() { served <- a.accept(l) }()
	fmt.Println("ready", os.Getpid()) // before the old one may be gone
	if err := upgrader.Ready(); err != nil {
		return err
	}
	select {
	case <-orders:
		if err := upgrader.Upgrade(); err != nil {
			return err
		}
		<-upgrader.Exit()
	case <-over:
	}
	if err := l.Close(); err != nil {
		return err
	}
	return a.gone(served)
}

// An answerer answers each connection's byte with the process id.
type answerer struct{ handlers sync.WaitGroup }

// gone waits for the last answer when the listener is closed.
func (a *answerer) gone(served <-chan error) error {
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		return err
	}
	a.handlers.Wait()
	fmt.Println("gone", os.Getpid())
	return nil
}

func (a *answerer) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		a.handlers.Go(func() {
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				return
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b[:1]); err != nil {
				return
			}
			binary.BigEndian.PutUint32(b, uint32(os.Getpid()))
			if _, err := c.Write(b); err == nil {
				_, _ = c.Read(b) // the client hangs up, or this side would be in TIME_WAIT
			}
		})
	}
}

// The clients' side

// A handOver is what came of the restarts of one kind.
type handOver struct {
	kind           string
	restarts       int
	sent, lost     int
	first, exit    []float64 // ms from the order to restart until the new one first answers, and until the old one has exited
	quiet, handing []float64 // ms from connect to answer
}

// session is how many restarts of one kind there are before it is the other's turn.
const session = 5

// measureHandOver restarts servers under load. The load is far below what a server
// can do, so that the answer's time is the server's and not a queue's.
func (r *results) measureHandOver(ctx context.Context, o options) error {
	if err := multipath(false); err != nil {
		return err
	}
	// A server that tableflip has started is nobody's child when its parent has gone.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	r.handOvers = []handOver{{kind: handoverWay}, {kind: flipWay}}
	for done := 0; done < o.restarts; done += session {
		for i := range r.handOvers {
			if err := r.handOvers[i].session(ctx, min(session, o.restarts-done), o.every); err != nil {
				return fmt.Errorf("%s: %w", r.handOvers[i].kind, err)
			}
		}
	}
	return nil
}

// session starts a server, restarts it several times under load, and ends it.
func (h *handOver) session(ctx context.Context, restarts int, every time.Duration) (err error) {
	f, err := newFleet(h.kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.end()) }()
	address, _, err := freePorts() // both kinds pass a socket by the address as it was asked for
	if err != nil {
		return err
	}
	if err := f.start(address); err != nil {
		return err
	}
	pid, err := f.ready()
	if err != nil {
		return err
	}
	load := startLoad(address)
	defer func() { h.add(load.stop()) }()
	for range restarts {
		if err := wait(ctx, every); err != nil {
			return err
		}
		load.handing.Store(true)
		begin := time.Now()
		if h.kind == flipWay {
			err = syscall.Kill(pid, syscall.SIGHUP)
		} else {
			err = f.start(address)
		}
		if err != nil {
			return err
		}
		next, err := f.ready()
		if err != nil {
			return err
		}
		if err := f.gone(pid); err != nil {
			return err
		}
		h.exit = append(h.exit, ms(time.Since(begin)))
		load.handing.Store(false)
		first, err := load.firstAnswer(ctx, next)
		if err != nil {
			return err
		}
		h.restarts++
		h.first = append(h.first, ms(first.Sub(begin)))
		pid = next
	}
	return wait(ctx, every)
}

func (h *handOver) add(l *load) {
	h.sent += l.sent
	h.lost += l.lost
	h.quiet = append(h.quiet, l.took[0]...)
	h.handing = append(h.handing, l.took[1]...)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A fleet is the servers of a session. They share what they print to and what ends
// them.
type fleet struct {
	kind        string
	exe         string
	inR, in     *os.File // closed, it ends them
	outR, outW  *os.File
	lines       *bufio.Reader
	alive, seen []int // process ids
}

func newFleet(kind string) (*fleet, error) {
	f := &fleet{kind: kind}
	var err error
	if f.exe, err = os.Executable(); err != nil {
		return nil, err
	}
	if f.inR, f.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	if f.outR, f.outW, err = os.Pipe(); err != nil {
		f.inR.Close()
		f.in.Close()
		return nil, err
	}
	f.lines = bufio.NewReader(f.outR)
	return f, nil
}

// start starts a server.
func (f *fleet) start(address string) error {
	cmd := exec.Command(f.exe, address)
	cmd.Env = append(os.Environ(), serverEnv+"="+f.kind)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f.inR, f.outW, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	f.adopt(cmd.Process.Pid)
	return cmd.Process.Release() // end waits for all servers alike
}

func (f *fleet) adopt(pid int) {
	if !slices.Contains(f.seen, pid) {
		f.seen = append(f.seen, pid)
		f.alive = append(f.alive, pid)
	}
}

// read returns the words that follow a word that must come next.
func (f *fleet) read(word string) ([]string, error) {
	if err := f.outR.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	line, err := f.lines.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("no server says %q: %w", word, err)
	}
	words := strings.Fields(line)
	if len(words) != 2 || words[0] != word {
		return nil, fmt.Errorf("a server says %q instead of %q", line, word)
	}
	return words[1:], nil
}

// ready waits for the next server.
func (f *fleet) ready() (pid int, err error) {
	words, err := f.read("ready")
	if err != nil {
		return 0, err
	}
	if pid, err = strconv.Atoi(words[0]); err != nil {
		return 0, fmt.Errorf("a server says it is ready as %q", words)
	}
	f.adopt(pid)
	return pid, nil
}

// gone waits for the end of a server.
func (f *fleet) gone(pid int) error {
	words, err := f.read("gone")
	if err != nil {
		return err
	}
	if words[0] != strconv.Itoa(pid) {
		return fmt.Errorf("server %s is gone instead of %d", words[0], pid)
	}
	f.alive = slices.DeleteFunc(f.alive, func(p int) bool { return p == pid })
	return f.reap(pid)
}

// reap waits for a process: one's own child, or its child if that has ended.
func (f *fleet) reap(pid int) error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return os.NewSyscallError("wait4", err)
		case status.ExitStatus() != 0:
			return fmt.Errorf("server %d ended with status %d", pid, status.ExitStatus())
		default:
			return nil
		}
	}
}

// end ends all servers.
func (f *fleet) end() error {
	f.inR.Close()
	f.outW.Close()
	f.in.Close()
	// All have gone when nobody can write any more.
	var errs []error
	err := f.outR.SetReadDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = io.Copy(io.Discard, f.lines)
	}
	if err != nil {
		errs = append(errs, err)
		for _, pid := range f.alive {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	f.outR.Close()
	for _, pid := range f.alive {
		errs = append(errs, f.reap(pid))
	}
	return errors.Join(errs...)
}

// A load is clients that connect at a steady pace.
type load struct {
	handing atomic.Bool
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	sent, lost int
	took       [2][]float64      // in quiet, and while a hand-over is under way
	first      map[int]time.Time // answer of each process
}

// The load: so many clients, and so many connections a second each.
const (
	loaders = 8
	pace    = 200
)

func startLoad(address string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, first: map[int]time.Time{}}
	for range loaders {
		l.running.Go(func() {
			tick := time.NewTicker(time.Second / pace)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					l.one(address)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return l
}

// stop ends the clients and returns the load, which nobody changes any more.
func (l *load) stop() *load {
	l.cancel()
	l.running.Wait()
	return l
}

// one makes one connection. It counts for the hand-over if there was one at either
// end of it.
func (l *load) one(address string) {
	handing := l.handing.Load()
	begin := time.Now()
	pid, err := ask(address)
	end := time.Now()
	took := ms(end.Sub(begin))
	handing = handing || l.handing.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.lost++
		return
	}
	if _, ok := l.first[pid]; !ok {
		l.first[pid] = end
	}
	if handing {
		l.took[1] = append(l.took[1], took)
	} else {
		l.took[0] = append(l.took[0], took)
	}
}

// firstAnswer waits until a process has answered, and returns when it did first.
func (l *load) firstAnswer(ctx context.Context, pid int) (time.Time, error) {
	for begin := time.Now(); ; {
		l.mu.Lock()
		at, ok := l.first[pid]
		l.mu.Unlock()
		if ok {
			return at, nil
		}
		if time.Since(begin) > patience {
			return at, fmt.Errorf("server %d does not answer", pid)
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return at, err
		}
	}
}

// ask makes a connection and returns the process that answered.
func ask(address string) (pid int, err error) {
	d := net.Dialer{Timeout: patience, KeepAlive: -1}
	c, err := d.Dial("tcp4", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetLinger(0); err != nil { // no TIME_WAIT
		return 0, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	b := []byte{1, 0, 0, 0}
	if _, err := c.Write(b[:1]); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, b)
	return int(binary.BigEndian.Uint32(b)), err
}

// quantile returns the q-th part of a list; 0 if that is empty.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(int(q*float64(len(list))), len(list)-1)]
}
