package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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
func start(t *testing.T, file, name string, env ...string) (*unit, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	log, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	t.Cleanup(func() { log.Close() })
	cmd := exec.CommandContext(ctx, file, "-address=127.0.0.1:0", "-name="+name)
	cmd.Env = append(testproc.Command(t).Env, env...)
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = cmd.Cancel() }) // an error says that all have exited
	return &unit{t: t, cmd: cmd, log: bufio.NewReader(log)}, nil
}

// serves waits until a process of the unit says that it serves, and returns its id.
func (u *unit) serves() (pid int) {
	u.t.Helper()
	line := testproc.ReadTo(u.t, u.log, " serves 127.0.0.1:")
	_, err := fmt.Sscanf(line[strings.LastIndex(line[:len(line)-1], "\n")+1:], "%d serves %s", &pid, &u.address)
	require.NoError(u.t, err, line)
	return pid
}

// answers asks the server for its process id.
func (u *unit) answers() int {
	u.t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + u.address)
	require.NoError(u.t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(u.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(u.t, err)
	return pid
}

// exe returns a link to this program, as a deployment may have.
func exe(t *testing.T) string {
	t.Helper()
	file, err := os.Executable()
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "web")
	require.NoError(t, os.Symlink(file, link))
	return link
}

func serviceName(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), os.Getpid()) }

// A notifySocket is where systemd hears from a service.
type notifySocket struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // a short one: a socket's path has 108 bytes
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	rc, err := conn.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		assert.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	}))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	return &notifySocket{t, path, conn}
}

// receive returns the next message and who has sent it: with NotifyAccess=main systemd
// listens to the main process only.
func (n *notifySocket) receive() (state string, pid int) {
	n.t.Helper()
	text, control := make([]byte, 100), make([]byte, 100)
	size, controlSize, _, _, err := n.conn.ReadMsgUnix(text, control)
	require.NoError(n.t, err)
	list, err := unix.ParseSocketControlMessage(control[:controlSize])
	require.NoError(n.t, err)
	require.NotEmpty(n.t, list)
	cred, err := unix.ParseUnixCredentials(&list[0])
	require.NoError(n.t, err)
	return string(text[:size]), int(cred.Pid)
}

// On SIGHUP, as from ExecReload, the next version takes over. It has nothing in its
// environment that is for its predecessor, and becomes the main process before that
// exits. A version that fails changes nothing, and leaves no zombie.
func TestReload(t *testing.T) {
	t.Parallel()
	notify, link := newNotifySocket(t), exe(t)
	u, err := start(t, link, serviceName(t), "NOTIFY_SOCKET="+notify.path, "WATCHDOG_PID=1", "LISTEN_PID=1", "LISTEN_FDS=1", "KEPT=1")
	require.NoError(t, err)
	first := u.serves()
	assert.Equal(t, u.cmd.Process.Pid, first)
	state, sender := notify.receive()
	assert.Equal(t, "READY=1", state)
	assert.Equal(t, first, sender)

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
	state, sender = notify.receive()
	assert.Equal(t, fmt.Sprintf("MAINPID=%d", second), state)
	assert.Equal(t, first, sender)
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
	state, sender = notify.receive()
	assert.Equal(t, fmt.Sprintf("MAINPID=%d", third), state)
	assert.Equal(t, second, sender)
	require.NoError(t, syscall.Kill(third, syscall.SIGTERM))
	_, err = io.ReadAll(u.log) // until no process has it
	require.NoError(t, err)
}

// An instance is a unit of a template, with Restart=on-failure or Restart=always. It
// starts at most five times, as systemd's StartLimitBurst has it.
type instance struct {
	processes chan *unit    // each that was started
	stopped   chan struct{} // closed when no more will be
}

func newInstance(t *testing.T, name string, always bool) *instance {
	i := &instance{make(chan *unit, 5), make(chan struct{})}
	file := exe(t)
	go func() {
		defer close(i.stopped)
		defer close(i.processes)
		for range cap(i.processes) {
			u, err := start(t, file, name)
			if !assert.NoError(t, err) {
				return
			}
			i.processes <- u
			if err := u.cmd.Wait(); err == nil && !always || t.Context().Err() != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { <-i.stopped })
	return i
}

// Two instances under a service manager that restarts what fails: one hand-over, then
// silence. An instance that is killed is started again, and that changes nothing for
// the other.
func TestInstances(t *testing.T) {
	t.Parallel()
	a := newInstance(t, serviceName(t), false)
	u := <-a.processes
	first := u.serves()
	assert.Equal(t, first, u.answers())

	b := newInstance(t, serviceName(t), false)
	u = <-b.processes
	second := u.serves()
	<-a.stopped // its process has exited with 0
	assert.Empty(t, a.processes)
	for range 100 {
		assert.Equal(t, second, u.answers())
	}
	assert.Empty(t, b.processes)

	require.NoError(t, syscall.Kill(second, syscall.SIGKILL))
	u = <-b.processes
	third := u.serves()
	assert.Equal(t, third, u.answers())
	require.NoError(t, syscall.Kill(third, syscall.SIGTERM))
	<-b.stopped
	assert.Empty(t, b.processes)
}

// With Restart=always two instances replace each other until the limit.
func TestInstancesAlways(t *testing.T) {
	t.Parallel()
	a := newInstance(t, serviceName(t), true)
	(<-a.processes).serves()
	b := newInstance(t, serviceName(t), true)
	for range 4 {
		(<-b.processes).serves()
		(<-a.processes).serves()
	}
}
