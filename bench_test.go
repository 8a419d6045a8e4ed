//go:build unix && !solaris

// Solaris has SO_REUSEPORT, but no name for it in x/sys.

package reuse_test

import (
	"context"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
)

// handWritten is the Control function that one writes without this package.
func handWritten(_, _ string, rc syscall.RawConn) error {
	var setErr error
	err := rc.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return setErr
}

// ways are what Config.Listen is measured against: package net without options,
// and net.ListenConfig with a Control function written by hand.
var ways = []struct {
	name   string
	listen func(ctx context.Context) (net.Listener, error)
}{
	{"net", func(ctx context.Context) (net.Listener, error) {
		var lc net.ListenConfig
		return lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	}},
	{"hand", func(ctx context.Context) (net.Listener, error) {
		lc := net.ListenConfig{Control: handWritten}
		return lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	}},
	{"reuse", func(ctx context.Context) (net.Listener, error) {
		return reuse.Config{Port: reuse.On}.Listen(ctx, "tcp4", "127.0.0.1:0")
	}},
}

func BenchmarkListen(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, err := way.listen(b.Context())
				require.NoError(b, err)
				l.Close()
			}
		})
	}
}

// BenchmarkListenRatio takes the three ways in turn, so that what else the machine
// does meets all alike, and reports the medians as ratios to the hand-written one.
func BenchmarkListenRatio(b *testing.B) {
	const block = 50
	times := make([][]float64, len(ways))
	ctx := b.Context()
	for i := 0; b.Loop(); i++ {
		for j := range ways {
			w := (i + j) % len(ways)
			begin := time.Now()
			for range block {
				l, err := ways[w].listen(ctx)
				if err != nil {
					b.Fatal(err)
				}
				l.Close()
			}
			times[w] = append(times[w], float64(time.Since(begin)))
		}
	}
	median := make([]float64, len(ways))
	for w := range ways {
		slices.Sort(times[w])
		median[w] = times[w][len(times[w])/2]
	}
	b.ReportMetric(0, "ns/op") // of all three together: says nothing
	b.ReportMetric(median[0]/median[1], "net/hand")
	b.ReportMetric(median[2]/median[1], "reuse/hand")
}

func BenchmarkControl(b *testing.B) {
	rc := someConn(b)
	c := reuse.Config{Port: reuse.On}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Control("tcp4", "127.0.0.1:0", rc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		c := reuse.Config{Addr: reuse.On, PortLB: reuse.Prefer}
		if err := c.Check(); err != nil {
			b.Fatal(err)
		}
	}
}

// someConn is what a Control function gets.
func someConn(t testing.TB) syscall.RawConn {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	rc, err := l.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	return rc
}

func TestAllocations(t *testing.T) {
	rc := someConn(t)
	c := reuse.Config{Addr: reuse.Prefer, Port: reuse.Prefer}
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = c.Control("tcp4", "127.0.0.1:0", rc) }), 2.0)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c := reuse.Config{Addr: reuse.On, PortLB: reuse.Prefer}
		_ = c.Check()
	}))
	if reuse.Port.Supported() != nil {
		return
	}
	allocs := map[string]float64{}
	for _, way := range ways {
		allocs[way.name] = testing.AllocsPerRun(100, func() {
			l, err := way.listen(context.Background())
			require.NoError(t, err)
			l.Close()
		})
	}
	assert.LessOrEqual(t, allocs["reuse"], allocs["hand"]+1)
}
