//go:build unix && !solaris

// Solaris has SO_REUSEPORT, but no name for it in x/sys.

package reuse_test

import (
	"context"
	"net"
	"syscall"
	"testing"

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
	allocs := func(listen func(ctx context.Context, network, address string) (net.Listener, error)) float64 {
		return testing.AllocsPerRun(100, func() {
			l, err := listen(context.Background(), "tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			l.Close()
		})
	}
	byHand := net.ListenConfig{Control: handWritten}
	assert.LessOrEqual(t, allocs(reuse.Config{Port: reuse.On}.Listen), allocs(byHand.Listen)+1)
}
