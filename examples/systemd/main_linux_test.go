package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockopt"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// A unit is what systemd has of a service: its processes write to one log.
type unit struct {
	t       *testing.T
	cmd     *exec.Cmd // the first process
	log     *bufio.Reader
	address string // of the server
}

// start starts a service, which is killed with all its processes when the test ends.
func start(t *testing.T, file string, env ...string) *unit {
	t.Helper()
	log, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	t.Cleanup(func() { log.Close() })
	cmd := testproc.Command(t, "-address=127.0.0.1:0", fmt.Sprintf("-name=%s-%d", t.Name(), os.Getpid()))
	cmd.Path, cmd.Args[0] = file, file
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // an error says that all have exited
	return &unit{t: t, cmd: cmd, log: bufio.NewReader(log)}
}

// serves waits until a process of the unit says that it serves, and returns its id.
func (u *unit) serves() (pid int) {
	u.t.Helper()
	line := testproc.ReadTo(u.t, u.log, " serves 127.0.0.1:")
	_, err := fmt.Sscanf(line, "%d serves %s", &pid, &u.address)
	require.NoError(u.t, err, line)
	return pid
}

// answers asks the server for its process id.
func (u *unit) answers() (pid int) {
	u.t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + u.address)
	require.NoError(u.t, err)
	defer r.Body.Close()
	_, err = fmt.Fscan(r.Body, &pid)
	require.NoError(u.t, err)
	return pid
}

// notifySocket returns the path at which systemd hears from a service, and a function that
// receives the next message, as in "READY=1 from 42". With NotifyAccess=main systemd listens
// to the main process only.
func notifySocket(t *testing.T) (path string, receive func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: a socket's path has 108 bytes
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	rc, err := conn.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, sockopt.Control(rc, func(fd uintptr) error { return sockopt.Set(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	return path, func() string {
		text, control := make([]byte, 100), make([]byte, 100)
		n, controlSize, _, _, err := conn.ReadMsgUnix(text, control)
		require.NoError(t, err)
		list, err := unix.ParseSocketControlMessage(control[:controlSize])
		require.NoError(t, err)
		cred, err := unix.ParseUnixCredentials(&list[0])
		require.NoError(t, err)
		return fmt.Sprintf("%s from %d", text[:n], cred.Pid)
	}
}

// On SIGHUP, as from ExecReload, the next version takes over. It has nothing in its
// environment that is for its predecessor, and becomes the main process before that
// exits. A version that fails changes nothing, and leaves no zombie.
func TestReload(t *testing.T) {
	t.Parallel()
	path, notified := notifySocket(t)
	file, err := os.Executable()
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "web") // as a deployment may have
	require.NoError(t, os.Symlink(file, link))
	u := start(t, link, "NOTIFY_SOCKET="+path, "WATCHDOG_PID=1", "LISTEN_PID=1", "LISTEN_FDS=1", "KEPT=1")
	first := u.serves()
	assert.Equal(t, u.cmd.Process.Pid, first)
	assert.Equal(t, fmt.Sprintf("READY=1 from %d", first), notified())

	good := link + ".good"
	require.NoError(t, os.Rename(link, good))
	require.NoError(t, os.Symlink("/bin/false", link))
	require.NoError(t, syscall.Kill(first, syscall.SIGHUP))
	testproc.ReadTo(t, u.log, "serves on, as the next version failed: exit status 1")
	assert.Equal(t, first, u.answers())
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", first))
	require.NoError(t, err)
	assert.Empty(t, string(children))

	require.NoError(t, os.Rename(good, link))
	require.NoError(t, syscall.Kill(first, syscall.SIGHUP))
	second := u.serves()
	assert.NotEqual(t, first, second)
	assert.Equal(t, second, u.answers())
	assert.Equal(t, fmt.Sprintf("MAINPID=%d from %d", second, first), notified())
	require.NoError(t, u.cmd.Wait(), "the first version exits with 0")

	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", second))
	require.NoError(t, err)
	assert.Contains(t, string(environ), "KEPT=1\x00")
	for _, name := range []string{"WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS"} {
		assert.NotContains(t, string(environ), name+"=")
	}

	// Now the second version is the main process.
	require.NoError(t, syscall.Kill(second, syscall.SIGHUP))
	third := u.serves()
	assert.Equal(t, fmt.Sprintf("MAINPID=%d from %d", third, second), notified())
	require.NoError(t, syscall.Kill(third, syscall.SIGTERM))
	_, err = io.ReadAll(u.log) // until no process has it
	require.NoError(t, err)
}

// Two instances of a template: the second takes over, and the first exits with 0, so that a
// service manager does not start it again.
func TestInstances(t *testing.T) {
	t.Parallel()
	file, err := os.Executable()
	require.NoError(t, err)
	a := start(t, file)
	assert.Equal(t, a.serves(), a.answers())
	b := start(t, file)
	second := b.serves()
	require.NoError(t, a.cmd.Wait())
	assert.Equal(t, second, b.answers())
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, b.cmd.Wait())
}
