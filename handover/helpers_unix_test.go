//go:build unix

package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// eachPlace runs a test at the default place, which is abstract on Linux, and at a Dir.
func eachPlace(t *testing.T, test func(t *testing.T, c Config)) {
	t.Parallel()
	for name, c := range map[string]Config{"default": {Name: rand.Text()}, "folder": {Name: "web", Dir: folder(t)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

// folder returns a folder with mode 0700 and a path that is short enough for a socket.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("", "h")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// unixAddress is one that a Unix socket can have.
func unixAddress(t testing.TB) string { return filepath.Join(folder(t), "s") }

func removed(path string) func() bool {
	return func() bool { _, err := os.Lstat(path); return errors.Is(err, os.ErrNotExist) }
}

// listening starts a Process that listens, and neither accepts nor is ready.
func listening(t testing.TB, c Config) (*Process, net.Listener) {
	t.Helper()
	p := begin(t, c)
	return p, listen(t, p, reuse.Config{}, "tcp4", anyPort)
}

// current starts a Process that answers connections with "old" and is ready.
func current(t testing.TB, c Config) (*Process, net.Listener) {
	t.Helper()
	p, l := listening(t, c)
	answerAll(l, "old")
	ready(t, p)
	return p, l
}

// succeed starts a Process that answers connections with "new" and replaces old.
func succeed(t testing.TB, c Config, old *Process) (*Process, net.Listener) {
	t.Helper()
	p, l := listening(t, c)
	answerAll(l, "new")
	ready(t, p)
	replaced(t, old)
	return p, l
}

// replaced waits until p has a successor.
func replaced(t testing.TB, p *Process) {
	t.Helper()
	select {
	case <-p.Replaced():
	case <-soon(t).Done():
		require.Fail(t, "not replaced")
	}
}

// startAsync calls Start in a goroutine of its own.
func startAsync(t testing.TB, c Config) <-chan *Process {
	started := make(chan *Process, 1)
	ctx := soon(t)
	go func() {
		p, err := c.Start(ctx)
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	return started
}

// A childProcess is a process of a service that answers connections with its pid.
type childProcess struct {
	*testproc.Process
	pid string
}

func child(t testing.TB, c Config, attr *syscall.SysProcAttr) childProcess { //nolint:unparam // attr is for Linux
	t.Helper()
	p := testproc.StartAs(t, attr, "process", c.Name, c.Dir)
	return childProcess{p, p.Ask("pid")}
}

// do sends commands, which must succeed.
func (p childProcess) do(t testing.TB, commands ...string) {
	t.Helper()
	for _, c := range commands {
		require.Equal(t, "ok", p.Ask(c), c)
	}
}

// takeOver has a child start, find a predecessor ("0" for none), listen and become current.
func (p childProcess) takeOver(t testing.TB, predecessor string) net.Addr {
	t.Helper()
	require.Equal(t, predecessor, p.Ask("start"))
	a := address{"tcp4", p.Ask("listen")}
	p.do(t, "serve", "ready")
	return a
}

// load starts clients that connect until end, one connection after the other. Each must
// be answered.
func load(t testing.TB, a net.Addr) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for pause(ctx.Done(), time.Millisecond) { // so that ports last
				conn, err := net.DialTimeout(a.Network(), a.String(), 10*time.Second)
				if err == nil {
					_, err = readAnswer(conn)
				}
				if !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	end = func() {
		cancel()
		clients.Wait()
	}
	t.Cleanup(end)
	return end
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

// stop stops a child and returns when it does not run.
func stop(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	untraced := 2 // WUNTRACED, which the packages do not have for each system
	if runtime.GOOS == "solaris" || runtime.GOOS == "illumos" {
		untraced = 4
	}
	var status unix.WaitStatus
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		_, err = unix.Wait4(pid, &status, untraced, nil)
	}
	require.NoError(t, err)
	require.True(t, status.Stopped())
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

// descriptor returns the number of a descriptor, and fails the test if it is blocking, or
// if programs that this process starts inherit it.
func descriptor(t testing.TB, sc any) (n int) {
	t.Helper()
	require.NoError(t, control(sc.(syscall.Conn), func(fd int) error {
		n = fd
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		inherited, ierr := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		require.NotZero(t, flags&unix.O_NONBLOCK, "it is blocking")
		require.NotZero(t, inherited&unix.FD_CLOEXEC, "it is inherited")
		return errors.Join(err, ierr)
	}))
	return n
}

// inode tells sockets apart, whichever processes hold them.
func inode(t testing.TB, sc any) string {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, control(sc.(syscall.Conn), func(fd int) error { return unix.Fstat(fd, &st) }))
	return fmt.Sprint(st.Dev, " ", st.Ino, " ", st.Rdev)
}

// openFiles counts the descriptors of a process, where they are listed.
func openFiles(pid int) int {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return -1
	}
	return len(d)
}

// leavesNothing runs f and waits until no more is open than before.
func leavesNothing(t testing.TB, name string, f func()) {
	t.Helper()
	count := func() (files, goroutines int) { return openFiles(os.Getpid()), runtime.NumGoroutine() }
	files, goroutines := count()
	f()
	for ctx := soon(t); ; {
		f, g := count()
		if f <= files && g <= goroutines {
			return
		}
		require.True(t, pause(ctx.Done(), time.Millisecond), "%s: %d files and %d goroutines, were %d and %d", name, f, g, files, goroutines)
	}
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
	_, err := io.Copy(io.Discard, h.in)
	require.NotErrorIs(h.t, err, os.ErrDeadlineExceeded)
}

func (h *hand) write(b []byte) {
	h.t.Helper()
	_, err := h.conn.Write(b)
	require.NoError(h.t, err)
}

func (h *hand) hello() []byte { return hello("x", h.conn).encode() }

// connect connects to the current process, as a newcomer that has said nothing yet.
func connect(t testing.TB, c Config) *hand {
	t.Helper()
	for ctx := soon(t); ; { // a full queue
		conn, err := net.Dial("unix", c.meetingPlace())
		if err == nil {
			return newHand(t, conn)
		}
		require.True(t, pause(ctx.Done(), time.Millisecond), err)
	}
}

// receiveAll says hello, and returns the sockets that the current process sends.
func (h *hand) receiveAll() (sockets []message) {
	h.t.Helper()
	h.write(h.hello())
	for m := (message{}); m.Type != typeEnd; m = h.read() {
		require.NotEqual(h.t, typeWait, m.Type)
		if m.Type == typeSocket {
			sockets = append(sockets, m)
		}
	}
	return sockets
}

// claim makes the test the current process, which answers nothing by itself.
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

// detached waits until p has no newcomer.
func detached(t testing.TB, p *Process) {
	t.Helper()
	require.Eventually(t, func() (yes bool) {
		return p.do(func() { yes = len(p.newcomer) == 0 }) == nil && yes
	}, 20*time.Second, time.Millisecond)
}
