//go:build linux

package bench

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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloudflare/tableflip"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/handover"
)

// serverEnv makes the test binary a server of a kind that restarts. Its address is in addressEnv.
const (
	serverEnv  = "REUSE_BENCH_SERVER"
	addressEnv = "REUSE_BENCH_ADDRESS"
)

// patience is how long anything may take before it counts as broken.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	servers := map[string]func(address string) error{"handover": serveHandover, "tableflip": serveTableflip}
	serve, ok := servers[os.Getenv(serverEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := serve(os.Getenv(addressEnv)); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// BenchmarkRestart replaces a server under load. An operation lasts from the order until
// the old process has answered its last request. Handover's new process is started by the
// benchmark, and tableflip's by the old process.
func BenchmarkRestart(b *testing.B) {
	for _, kind := range []string{"handover", "tableflip"} {
		b.Run("lib="+kind, func(b *testing.B) { restart(b, kind) })
	}
}

func restart(b *testing.B, kind string) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	require.NoError(b, free.Close())
	f := newFleet(b, kind, free.Addr().String())
	f.start()
	pid := f.read("ready")
	l := startLoad(f.address)
	defer l.stop()
	var first []float64
	for b.Loop() {
		b.StopTimer()
		time.Sleep(250 * time.Millisecond)
		l.restarting.Store(true)
		begin := time.Now()
		b.StartTimer()
		if kind == "tableflip" {
			require.NoError(b, syscall.Kill(pid, syscall.SIGHUP))
		} else {
			f.start()
		}
		next := f.read("ready")
		require.Equal(b, pid, f.read("gone"))
		b.StopTimer()
		l.restarting.Store(false)
		first = append(first, ms(l.firstAnswer(b, next).Sub(begin)))
		pid = next
		b.StartTimer()
	}
	l.stop()
	b.ReportMetric(float64(l.lost), "lost")
	b.ReportMetric(quantile(first, 0.5), "first-answer-ms")
	b.ReportMetric(quantile(l.took[0], 0.99), "p99-quiet-ms")
	b.ReportMetric(quantile(l.took[1], 0.99), "p99-restart-ms")
	require.Zero(b, l.lost, "of %d connections", l.sent)
}

func serveHandover(address string) error {
	ctx := context.Background()
	p, err := handover.Config{Name: fmt.Sprintf("bench-%d", os.Getppid())}.Start(ctx)
	if err != nil {
		return err
	}
	l, err := p.Listen(ctx, reuse.Config{}, "tcp4", address)
	if err != nil {
		return err
	}
	a := serve(l)
	if err := p.Ready(ctx); err != nil {
		return err
	}
	<-p.Replaced()
	if err := p.Close(); err != nil {
		return err
	}
	return a.finish()
}

func serveTableflip(address string) error {
	orders := make(chan os.Signal, 1)
	signal.Notify(orders, syscall.SIGHUP)
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer upgrader.Stop()
	l, err := upgrader.Listen("tcp4", address)
	if err != nil {
		return err
	}
	a := serve(l)
	if err := upgrader.Ready(); err != nil {
		return err
	}
	<-orders
	if err := upgrader.Upgrade(); err != nil {
		return err
	}
	<-upgrader.Exit()
	if err := l.Close(); err != nil {
		return err
	}
	return a.finish()
}

// An answerer answers each connection's byte with the process id. It prints "ready PID"
// when it begins, and "gone PID" after its last answer. A server exits when standard input
// ends.
type answerer struct {
	handlers sync.WaitGroup
	served   chan error
}

func serve(l net.Listener) *answerer {
	a := &answerer{served: make(chan error, 1)}
	go func() { a.served <- a.accept(l) }()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("ready", os.Getpid()) // before the previous server is gone
	return a
}

// finish waits for the last answer when the listener is closed.
func (a *answerer) finish() error {
	if err := <-a.served; !errors.Is(err, net.ErrClosed) {
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
			_ = c.SetDeadline(time.Now().Add(patience))
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

// A fleet is the servers of a benchmark. They share standard input and output.
type fleet struct {
	b             *testing.B
	kind, address string
	in, out       *os.File // the servers' ends
	from          *os.File
	lines         *bufio.Reader
}

func newFleet(b *testing.B, kind, address string) *fleet {
	in, end, err := os.Pipe()
	require.NoError(b, err)
	from, out, err := os.Pipe()
	require.NoError(b, err)
	f := &fleet{b, kind, address, in, out, from, bufio.NewReader(from)}
	b.Cleanup(func() {
		for _, file := range []*os.File{end, in, out, from} { // the end of their input ends the servers
			file.Close()
		}
	})
	return f
}

// start starts a server.
func (f *fleet) start() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serverEnv+"="+f.kind, addressEnv+"="+f.address)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f.in, f.out, os.Stderr
	require.NoError(f.b, cmd.Start())
	go func() { _ = cmd.Wait() }() // ends with the server
}

// read waits for a line of a server and returns its process id.
func (f *fleet) read(word string) (pid int) {
	_ = f.from.SetReadDeadline(time.Now().Add(patience))
	line, err := f.lines.ReadString('\n')
	require.NoError(f.b, err)
	_, err = fmt.Sscanf(line, word+" %d", &pid)
	require.NoError(f.b, err, "%q instead of %q", line, word)
	return pid
}

// A load is clients that connect at a steady pace, far below what a server can do, so
// that the time of an answer is the server's and not a queue's.
type load struct {
	restarting atomic.Bool
	cancel     context.CancelFunc
	running    sync.WaitGroup

	mu         sync.Mutex
	sent, lost int
	took       [2][]float64      // ms in quiet, and if a restart was under way at the begin or the end
	first      map[int]time.Time // answer of each process
}

func startLoad(address string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, first: map[int]time.Time{}}
	for range 8 {
		l.running.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; <-tick.C {
				l.one(address)
			}
		})
	}
	return l
}

// stop ends the clients. Nothing changes the load after that.
func (l *load) stop() {
	l.cancel()
	l.running.Wait()
}

// one makes one connection.
func (l *load) one(address string) {
	restarting := l.restarting.Load()
	begin := time.Now()
	pid, err := ask(address)
	end := time.Now()
	restarting = restarting || l.restarting.Load()
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
	if restarting {
		l.took[1] = append(l.took[1], ms(end.Sub(begin)))
	} else {
		l.took[0] = append(l.took[0], ms(end.Sub(begin)))
	}
}

// firstAnswer waits until a process has answered, and returns when it did first.
func (l *load) firstAnswer(b *testing.B, pid int) (at time.Time) {
	require.Eventually(b, func() (ok bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		at, ok = l.first[pid]
		return ok
	}, patience, time.Millisecond)
	return at
}

// ask makes a connection and returns the process that answered.
func ask(address string) (pid int, err error) {
	d := net.Dialer{Timeout: patience, KeepAlive: -1}
	c, err := d.Dial("tcp4", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
	_ = c.SetDeadline(time.Now().Add(patience))
	b := []byte{1, 0, 0, 0}
	if _, err := c.Write(b[:1]); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, b)
	return int(binary.BigEndian.Uint32(b)), err
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// quantile returns the q-th part of a list.
func quantile(list []float64, q float64) float64 {
	slices.Sort(list)
	return list[int(q*float64(len(list)))]
}
