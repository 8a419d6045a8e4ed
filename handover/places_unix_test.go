//go:build unix

package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/testproc"
)

// eachPlace runs a test at the default place, which is abstract on Linux, and at a Dir.
func eachPlace(t *testing.T, test func(t *testing.T, c Config)) {
	t.Parallel()
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		test(t, Config{Name: rand.Text()})
	})
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		test(t, Config{Name: "web", Dir: folder(t)})
	})
}

// folder returns a folder with a path that is short enough for a socket, and mode 0700.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("", "h")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// child starts a process of a service.
func child(t testing.TB, c Config, attr *syscall.SysProcAttr) *testproc.Process { //nolint:unparam // attr is for Linux
	t.Helper()
	return testproc.StartAs(t, attr, "process", c.Name, c.Dir)
}

// A clientLoad is clients that connect until stop, one connection after the other.
type clientLoad struct {
	stop chan struct{}
	done sync.WaitGroup
	mu   sync.Mutex
	seen map[string]int // answers
	lost []error
}

func load(t testing.TB, clients int, a net.Addr) *clientLoad {
	c := &clientLoad{stop: make(chan struct{}), seen: map[string]int{}}
	for range clients {
		c.done.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				who, err := ask(a.Network(), a.String())
				c.mu.Lock()
				c.seen[who]++
				if err != nil {
					c.lost = append(c.lost, err)
				}
				c.mu.Unlock()
				time.Sleep(time.Millisecond) // so that ports last
			}
		})
	}
	t.Cleanup(c.end)
	return c
}

func (c *clientLoad) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
}

// wait waits until who has answered once more.
func (c *clientLoad) wait(t testing.TB, who string) {
	t.Helper()
	ctx := soon(t)
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.seen[who]
	}
	for n := count(); count() == n; {
		require.NoError(t, pause(ctx.Done(), time.Millisecond), "no answer by %s", who)
	}
}

// none ends the load and fails the test if a client got no answer.
func (c *clientLoad) none(t testing.TB) {
	t.Helper()
	c.end()
	c.done.Wait()
	require.Empty(t, c.lost)
}

// A hand is one end of the protocol, played by a test.
type hand struct {
	*link
	t   testing.TB
	in  *receiver
	die func() // does what the kernel does for a process that is killed
}

func newHand(t testing.TB, conn net.Conn) *hand {
	l := &link{conn: conn.(*net.UnixConn), over: make(chan struct{})}
	h := &hand{link: l, t: t, in: &receiver{conn: l.conn}}
	h.die = sync.OnceFunc(func() {
		h.conn.Close()
		h.in.close()
	})
	t.Cleanup(h.die)
	require.NoError(t, l.conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	return h
}

// read returns the next message. Descriptors are collected in h.in.
func (h *hand) read() message {
	h.t.Helper()
	m, err := readMessage(h.in)
	require.NoError(h.t, err)
	return m
}

// gone waits until the other side has closed the connection.
func (h *hand) gone() {
	h.t.Helper()
	for {
		if _, err := readMessage(h.in); err != nil {
			require.NotErrorIs(h.t, err, os.ErrDeadlineExceeded)
			return
		}
	}
}

func (h *hand) write(b []byte) {
	h.t.Helper()
	_, err := h.conn.Write(b)
	require.NoError(h.t, err)
}

func frame(t testing.TB, m message) []byte {
	t.Helper()
	b, err := m.encode()
	require.NoError(t, err)
	return b
}

// connect connects to the current process, as a newcomer that has said nothing yet.
func connect(t testing.TB, c Config) *hand {
	t.Helper()
	for ctx := soon(t); ; { // a full queue
		conn, err := net.Dial("unix", c.meetingPlace())
		if err == nil {
			return newHand(t, conn)
		}
		require.NoError(t, pause(ctx.Done(), time.Millisecond), err)
	}
}

// enter is a newcomer that has received everything.
func enter(t testing.TB, c Config) (h *hand, sockets []message) {
	t.Helper()
	h = connect(t, c)
	require.NoError(t, h.send(hello(newID(), h.conn)))
	for {
		m := h.read()
		switch m.Type {
		case typeSocket:
			sockets = append(sockets, m)
		case typeEnd:
			return h, sockets
		}
	}
}

// claim makes the test the current process, which answers nobody by itself.
func claim(t testing.TB, c Config) *rendezvous {
	t.Helper()
	p, err := c.findPlace()
	require.NoError(t, err)
	r, err := p.claim(time.Hour)
	require.NoError(t, err)
	t.Cleanup(func() { r.close(true) })
	return r
}

// admit returns a newcomer that has said hello.
func admit(t testing.TB, r *rendezvous) *hand {
	t.Helper()
	require.NoError(t, r.listener.SetDeadline(time.Now().Add(20*time.Second)))
	conn, err := r.listener.Accept()
	require.NoError(t, err)
	h := newHand(t, conn)
	require.Equal(t, typeHello, h.read().Type)
	return h
}

// give sends what a current process sends first.
func (h *hand) give(r *rendezvous, sockets ...*socket) {
	h.t.Helper()
	require.NoError(h.t, h.send(hello("current", h.conn)))
	require.NoError(h.t, h.sendDescriptor(message{Type: typeRendezvous}, r.listener))
	if r.lock != nil {
		require.NoError(h.t, h.sendDescriptor(message{Type: typeLock}, r.lock))
	}
	for i, s := range sockets {
		require.NoError(h.t, h.sendDescriptor(message{Type: typeSocket, ID: i + 1, Network: s.network, Address: s.address}, s))
	}
	require.NoError(h.t, h.send(message{Type: typeEnd}))
}

// hold stops the goroutine that owns the state of p, as SIGSTOP does all, until the
// function that it returns is called.
func hold(t testing.TB, p *Process) (release func()) {
	t.Helper()
	c := make(chan struct{})
	release = sync.OnceFunc(func() { close(c) })
	t.Cleanup(release)
	held := make(chan struct{})
	go func() { _ = p.do(func() { close(held); <-c }) }()
	<-held
	return release
}

// descriptor returns the number of a descriptor, and fails the test if it is blocking, or
// if programs that this process starts inherit it.
func descriptor(t testing.TB, sc any) (fd int) {
	t.Helper()
	rc, err := sc.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(n uintptr) {
		fd = int(n)
		flags, ferr := unix.FcntlInt(n, unix.F_GETFL, 0)
		inherited, ierr := unix.FcntlInt(n, unix.F_GETFD, 0)
		require.NoError(t, errors.Join(ferr, ierr))
		require.NotZero(t, flags&unix.O_NONBLOCK, "it is blocking")
		require.NotZero(t, inherited&unix.FD_CLOEXEC, "it is inherited")
	}))
	return fd
}

// unixAddress is one that a Unix socket can have.
func unixAddress(t testing.TB) string { return filepath.Join(folder(t), "s") }

// detached waits until p has no newcomer.
func detached(t testing.TB, p *Process) {
	t.Helper()
	ctx := soon(t)
	for attached := 1; attached > 0; {
		require.NoError(t, ctx.Err())
		require.NoError(t, p.do(func() { attached = len(p.newcomer) }))
	}
}

// waitedFor fails a test unless a call ends with its ctx, and an error that names the
// process that it waited for, once it knows that.
func waitedFor(t testing.TB, pid string, call func(context.Context) error) {
	t.Helper()
	if testproc.OnGVisor() { // which tells the id of a thread
		pid = ""
	}
	for d := 30 * time.Millisecond; ; d *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		err := call(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if d > 2*time.Second || strings.Contains(err.Error(), "waited for pid "+pid) {
			require.ErrorContains(t, err, "waited for pid "+pid)
			return
		}
	}
}

func startUntil(c Config) func(context.Context) error {
	return func(ctx context.Context) error { _, err := c.Start(ctx); return err }
}
