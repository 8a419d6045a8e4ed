package group_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/group"
	"example.com/reuse/internal/sockdiag"
	"example.com/reuse/internal/testproc"
)

// Each call that a group makes on a socket fails once: in Listen with every errno, and in
// what takes longer with one after the other. How: testproc.Faults, a seccomp filter.

var faultErrnos = []syscall.Errno{
	unix.EINVAL, unix.ENOPROTOOPT, unix.EMFILE, unix.EPERM, unix.EADDRINUSE, unix.EOPNOTSUPP, unix.ENOBUFS,
	unix.EACCES, unix.ENOSYS, unix.ENFILE, unix.EADDRNOTAVAIL, unix.ENOMEM, unix.EAFNOSUPPORT, unix.EINTR,
}

// eachCall calls try with one call after the other failing, until try makes no more.
func eachCall(t *testing.T, try func(fault testproc.Fault) (hit bool)) {
	hits := 0
	for nth, hit := 1, true; hit; nth++ {
		hit = try(testproc.Fault{Errno: faultErrnos[nth%len(faultErrnos)], Nth: nth})
		if hit {
			hits++
		}
	}
	t.Log(hits, "calls failed")
	assert.NotZero(t, hits)
}

// state is what must not grow.
type state struct{ files, goroutines int }

func stateNow() state { return state{openFiles(), runtime.NumGoroutine()} }

// clean is stateNow after the garbage collector, which is off otherwise: it closes what
// leaks.
func clean() state {
	runtime.GC()
	return stateNow()
}

// isBack waits until the process has no more than it had; the last connection may be open
// still.
func (s state) isBack() bool {
	for range 100_000 {
		if now := stateNow(); now.files <= s.files && now.goroutines <= s.goroutines {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// listeners counts those of the kernel that have an address's port.
func listeners(t *testing.T, address string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	require.NoError(t, err)
	port, err := strconv.Atoi(p)
	require.NoError(t, err)
	n := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := sockdiag.TCP(family, uint16(port), sockdiag.Listen)
		require.NoError(t, err)
		n += len(list)
	}
	return n
}

// whatFailed describes a fault in the order of calls.
func whatFailed(fault testproc.Fault, seen []testproc.Call) string {
	what := fmt.Sprint("call ", fault.Nth, " ", unix.ErrnoName(fault.Errno))
	if fault.Nth <= len(seen) {
		what += fmt.Sprint(" ", seen[fault.Nth-1])
	}
	return what
}

// Listen opens all or none.
func TestListenFaults(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) { // where nobody else takes ports
		return
	}
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	beside := start(t, 2, "tcp4", "127.0.0.1:0")
	at := beside.g.Addr().String()
	for _, tt := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp", ":0"}, {"tcp4", at}} {
		failed := 0
		try := func(fault testproc.Fault) bool {
			before := clean()
			var g *group.Group
			var err error
			seen, hit := f.Run(fault, func() { g, err = group.Config{Size: 2}.Listen(t.Context(), tt.network, tt.address) })
			what := whatFailed(fault, seen)
			if err != nil {
				failed++
				var ne *net.OpError
				require.ErrorAs(t, err, &ne, what)
				require.ErrorIs(t, err, fault.Errno, what)
				var oe *reuse.OptionError
				if c := seen[fault.Nth-1]; c.Number == unix.SYS_SETSOCKOPT && c.A == unix.SOL_SOCKET && c.B == unix.SO_REUSEPORT {
					require.ErrorAs(t, err, &oe, what)
					require.Equal(t, reuse.PortLB, oe.Option, what)
				}
			} else {
				require.Len(t, g.Listeners(), 2)
				require.NoError(t, g.Close(), what)
			}
			require.True(t, before.isBack(), "%s: %v, was %v", what, stateNow(), before)
			return hit
		}
		for nth, hit := 1, true; hit; nth++ {
			errnos := faultErrnos
			if testing.Short() {
				errnos = errnos[:3]
			}
			for _, errno := range errnos {
				hit = try(testproc.Fault{Errno: errno, Nth: nth})
			}
		}
		t.Log(tt.network, tt.address, failed, "failed")
		assert.NotZero(t, failed)
	}
	assert.Equal(t, 2, listeners(t, at))
	assert.NoError(t, ask(at))
	assert.False(t, attached(t, beside.g.Listeners()[0]))
	l, err := net.Listen("unix", group.LockName(beside.g))
	require.NoError(t, err, "the lock is free")
	l.Close()
	require.NoError(t, beside.g.Close())
	require.NoError(t, <-beside.done)
}

// TakeOver that fails leaves nothing behind, both groups serve, and it can be tried again.
func TestTakeOverFaults(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) { // where nobody else takes ports
		return
	}
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	old := start(t, 2, "tcp4", "127.0.0.1:0")
	address := old.g.Addr().String()
	require.NoError(t, ask(address))
	failed := 0
	eachCall(t, func(fault testproc.Fault) bool {
		before := clean()
		next := start(t, 2, "tcp4", address)
		var err error
		seen, hit := f.Run(fault, func() { err = next.g.TakeOver(t.Context(), 0) })
		what := whatFailed(fault, seen)
		if err != nil {
			failed++
			require.ErrorIs(t, err, fault.Errno, what)
			require.Zero(t, group.Spares(next.g), what)
			require.Equal(t, 4, listeners(t, address), what)
			require.False(t, attached(t, old.g.Listeners()[0]), what)
			require.NoError(t, ask(address), what)
			if failed%4 == 0 {
				require.NoError(t, next.g.TakeOver(t.Context(), 0), what)
			}
		}
		require.NoError(t, ask(address), what)
		require.NoError(t, next.g.Close(), what)
		require.NoError(t, <-next.done, what)
		require.True(t, before.isBack(), "%s: %v, was %v", what, stateNow(), before)
		require.Equal(t, 2, listeners(t, address), what)
		require.False(t, attached(t, old.g.Listeners()[0]), what)
		return hit
	})
	t.Log(failed, "failed")
	assert.NotZero(t, failed)
	require.NoError(t, old.g.Close())
	require.NoError(t, <-old.done)
}

// Drain ends whatever fails, in it or in the successor that settles meanwhile, and says
// what did.
func TestDrainFaults(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) { // where nobody else takes ports
		return
	}
	f := testproc.Faulty(t)
	if f == nil {
		return
	}
	failed := 0
	eachCall(t, func(fault testproc.Fault) bool {
		before := clean()
		old := start(t, 2, "tcp4", "127.0.0.1:0")
		address := old.g.Addr().String()
		next := start(t, 2, "tcp4", address)
		require.NoError(t, next.g.TakeOver(t.Context(), 0))
		var err error
		seen, hit := f.Run(fault, func() {
			err = old.g.Drain(t.Context())
			require.NoError(t, group.Settled(t.Context(), next.g))
		})
		what := whatFailed(fault, seen)
		if err != nil {
			failed++
			switch seen[fault.Nth-1] {
			case testproc.Call{Number: unix.SYS_SOCKET, A: unix.AF_UNIX, B: unix.SOCK_STREAM},
				testproc.Call{Number: unix.SYS_GETSOCKOPT, A: unix.SOL_SOCKET, B: unix.SO_PEERCRED}:
				// The successor cannot be asked, or does not answer: that it has taken
				// over is not known.
			default:
				require.ErrorIs(t, err, fault.Errno, what)
			}
		}
		require.NoError(t, <-old.done, what)
		require.ErrorIs(t, old.g.Close(), net.ErrClosed, what)
		require.NoError(t, ask(address), what)
		if err := next.g.Close(); err != nil {
			require.ErrorIs(t, err, fault.Errno, what)
		}
		require.NoError(t, <-next.done, what)
		require.Zero(t, listeners(t, address), what)
		require.True(t, before.isBack(), "%s: %v, was %v", what, stateNow(), before)
		return hit
	})
	t.Log(failed, "failed")
	assert.NotZero(t, failed)
}

// There are no more descriptors in the middle of opening a group: nothing of it stays open,
// and one that was opened before goes on.
func TestNoDescriptors(t *testing.T) {
	if !testproc.Netns(t) { // alone, so that the limit is only its own
		return
	}
	before := start(t, 2, "tcp4", "127.0.0.1:0")
	address := before.g.Addr().String()
	require.NoError(t, askToTheEnd(address))
	debug.SetGCPercent(-1) // which closes what leaks
	for _, target := range []string{"127.0.0.1:0", address} {
		for left, opened := 0, false; !opened; left++ {
			now := state{openFiles(), 1 << 20}
			all := fill(t)
			for _, fd := range all[:left] {
				require.NoError(t, unix.Close(fd))
			}
			g, err := group.Config{Size: 8}.Listen(t.Context(), "tcp4", target)
			for _, fd := range all[left:] {
				require.NoError(t, unix.Close(fd))
			}
			if opened = err == nil; opened {
				require.Greater(t, left, 8)
				require.NoError(t, g.Close())
			} else {
				require.ErrorIs(t, err, unix.EMFILE)
			}
			require.True(t, now.isBack(), "%d descriptors, were %d", openFiles(), now.files)
			require.Equal(t, 2, listeners(t, address))
			for range 3 {
				require.NoError(t, askToTheEnd(address))
			}
		}
	}
	next := start(t, 2, "tcp4", address)
	require.NoError(t, next.g.TakeOver(t.Context(), 0))
	require.NoError(t, before.g.Drain(t.Context()))
	require.NoError(t, <-before.done)
	require.NoError(t, next.g.Close())
	require.NoError(t, <-next.done)
}

// askToTheEnd asks, and waits until the answering process has given its descriptor back.
func askToTheEnd(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	said, err := io.ReadAll(c)
	if err == nil && len(said) != 1 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// fill opens descriptors until the process may have no more.
func fill(t *testing.T) (fds []int) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = 200
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			return fds
		}
		fds = append(fds, fd)
	}
}
