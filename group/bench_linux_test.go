package group_test

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/group"
)

// Short connections a second: of a group of two, with and without Rescue, against
// one listener with two accept loops, in turns, so that all see the same machine.
// The clients do as little as possible: they connect and hang up. They share the
// processors with the servers, so what is compared is the work for a connection.
func BenchmarkAccept(b *testing.B) {
	var accepted atomic.Int64
	greet := func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			c.Close()
			accepted.Add(1)
		}
	}
	plain, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	defer plain.Close()
	for range 2 {
		go func() { _ = greet(plain) }()
	}
	addresses := []net.Addr{plain.Addr()}
	for _, rescue := range []bool{false, true} {
		g, err := group.Config{Size: 2, Rescue: rescue}.Listen(b.Context(), "tcp4", "127.0.0.1:0")
		require.NoError(b, err)
		go func() { _ = g.Serve(greet) }()
		defer g.Close()
		addresses = append(addresses, g.Addr())
	}

	const turn, clients = 4_000, 2
	took := make([]time.Duration, len(addresses))
	for b.Loop() {
		for i, at := range addresses {
			begin, before := time.Now(), accepted.Load()
			var running sync.WaitGroup
			for range clients {
				running.Go(func() {
					to := &unix.SockaddrInet4{Port: at.(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
					for n := range int64(turn / clients) {
						for clients*n-(accepted.Load()-before) > 1_000 { // or the queue is full
							runtime.Gosched()
						}
						if err := hello(to); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			running.Wait()
			for accepted.Load()-before < turn && !b.Failed() {
				runtime.Gosched()
			}
			took[i] += time.Since(begin)
		}
	}
	n := float64(b.N) * turn
	b.ReportMetric(n/took[0].Seconds(), "plain/s")
	b.ReportMetric(n/took[1].Seconds(), "group/s")
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "group/plain")
	b.ReportMetric(took[1].Seconds()/took[2].Seconds(), "rescue/group")
}

// What accepting alone costs: full queues are emptied, by one listener with two accept
// loops, and by a group of two.
func BenchmarkAcceptQueued(b *testing.B) {
	const queued = 3_000 // below somaxconn, all on one listener
	var took [2]time.Duration
	for b.Loop() {
		for i := range took {
			var listeners []net.Listener
			if i == 0 {
				l, err := net.Listen("tcp4", "127.0.0.1:0")
				require.NoError(b, err)
				listeners = []net.Listener{l, l}
			} else {
				g, err := group.Config{Size: 2}.Listen(b.Context(), "tcp4", "127.0.0.1:0")
				require.NoError(b, err)
				listeners = g.Listeners()
			}
			to := &unix.SockaddrInet4{Port: listeners[0].Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
			for range queued {
				require.NoError(b, hello(to))
			}
			var left atomic.Int64
			left.Store(queued)
			empty := make(chan struct{})
			begin := time.Now()
			for _, l := range listeners {
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						c.Close()
						if left.Add(-1) == 0 {
							close(empty)
						}
					}
				}()
			}
			<-empty
			took[i] += time.Since(begin)
			for _, l := range listeners {
				l.Close()
			}
		}
	}
	b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N*queued), "ns/plain")
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "group/plain")
}

// A hundred clients, and one of four listeners does not accept: how long the slowest
// waits for his answer.
func BenchmarkStalled(b *testing.B) {
	var slowest time.Duration
	for b.Loop() {
		g, err := group.Config{Size: 4, Rescue: true}.Listen(b.Context(), "tcp4", "127.0.0.1:0")
		require.NoError(b, err)
		for _, l := range g.Listeners()[1:] {
			go func() { _ = answer(l) }()
		}
		var clients sync.WaitGroup
		var mu sync.Mutex
		for range 100 {
			clients.Go(func() {
				begin := time.Now()
				if err := ask(g.Addr().String()); err != nil {
					b.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, time.Since(begin))
			})
		}
		clients.Wait()
		require.NoError(b, g.Close())
	}
	b.ReportMetric(float64(slowest.Milliseconds()), "slowest-ms")
}

// hello connects and hangs up, without a port that has to wait.
func hello(to unix.Sockaddr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	return unix.Connect(s, to)
}

// What it takes to open a group, and what each listener keeps in this process.
func BenchmarkListen(b *testing.B) {
	for _, size := range []int{16, 64, 256, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var used uint64
			for b.Loop() {
				before := inUse()
				begin := time.Now()
				g, err := group.Config{Size: size}.Listen(b.Context(), "tcp4", "127.0.0.1:0")
				took := time.Since(begin)
				require.NoError(b, err)
				used += inUse() - min(before, inUse())
				b.ReportMetric(float64(took.Nanoseconds())/float64(size), "ns/listener")
				require.NoError(b, g.Close())
			}
			b.ReportMetric(float64(used)/float64(b.N*size), "B/listener")
		})
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
