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

// Short connections a second, those of a group of two against those of one listener
// with two accept loops, in turns, so that both see the same machine. The clients do
// as little as possible: they connect and hang up.
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
	g, err := group.Config{Size: 2}.Listen(b.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(b, err)
	go func() { _ = g.Serve(greet) }()
	defer g.Close()

	const turn, clients = 4_000, 2
	var took [2]time.Duration
	for b.Loop() {
		for i, at := range []net.Addr{plain.Addr(), g.Addr()} {
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
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
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
