//go:build !android

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

// What prepare does.
const (
	noIPv6   = "noipv6"   // there is no IPv6
	deafPort = "deafport" // SO_REUSEPORT can be set, and does nothing
	small    = "small"    // no file can be larger than a part of a page
	noSetuid = "nosetuid" // nobody may become another user
)

// prepare makes a process what a test wants it to be.
func prepare(how string) error {
	switch how {
	case noIPv6:
		return testproc.Deny(unix.EAFNOSUPPORT, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_INET6})
	case deafPort:
		return testproc.Deny(0, unix.SYS_SETSOCKOPT, testproc.Arg{Index: 1, Value: unix.SOL_SOCKET}, testproc.Arg{Index: 2, Value: unix.SO_REUSEPORT})
	case noSetuid:
		return testproc.Deny(unix.EPERM, unix.SYS_SETUID)
	case small:
		return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 10000, Max: 10000})
	}
	return nil
}

// unprivileged has a command run where nobody can become another user: not as root, or
// as a root whom the kernel refuses it. A user namespace would do that too, but not in
// a container, nor after chroot.
func unprivileged(cmd *exec.Cmd) bool {
	if os.Geteuid() != 0 {
		return true
	}
	switch runtime.GOARCH {
	case "386", "arm": // have two calls for it
		return false
	}
	cmd.Env = append(cmd.Env, prepareEnv+"="+noSetuid)
	return true
}

// Without IPv6 the pairs of IPv4 are what is left.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	testproc.NeedDeny(t)
	for _, args := range [][]string{{}, {"-two"}} {
		without := func(more ...string) (stdout string) {
			cmd := testproc.Command(t, append(args, more...)...)
			cmd.Env = append(cmd.Env, prepareEnv+"="+noIPv6)
			stdout, stderr, status := testproc.Run(t, cmd)
			assert.Equal(t, 0, status)
			assert.Empty(t, stderr)
			return stdout
		}
		text := without()
		assert.Contains(t, text, "\nLeft out: IPv6, which is not here (socket: address family not supported by")
		assert.Contains(t, text, "\n288 pairs of binds: ")
		assert.Equal(t, 1, strings.Count(text, "Left out"))
		rows := decode(t, without("-json"))
		assert.Len(t, rows, 288)
		for _, r := range rows {
			assert.False(t, r.First.IPv6() || r.Second.IPv6(), "%+v", r)
		}
	}
}

// Without a free port there is nothing to measure.
func TestNoFreePort(t *testing.T) {
	t.Parallel()
	if !testproc.Netns(t) {
		return
	}
	err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40000"), 0)
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("this user may not limit the ports of a namespace: %v", err)
	}
	require.NoError(t, err)
	stdout, stderr, status := example(t)
	assert.Equal(t, 0, status, "one port is enough: %s", stderr)
	assert.NotEmpty(t, stdout)

	l, err := net.Listen("tcp4", "0.0.0.0:40000")
	require.NoError(t, err)
	defer l.Close()
	for _, args := range [][]string{nil, {"-two"}, {"-json"}} {
		stdout, stderr, status := example(t, args...)
		assert.Equal(t, 2, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "no free port: bind: address already in use")
	}

	p, err := net.ListenPacket("udp4", "0.0.0.0:40000")
	require.NoError(t, err)
	defer p.Close()
	stdout, stderr, status = example(t)
	assert.Equal(t, 2, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "nothing can be bound here: ")
}

// A kernel that does not do what the rules say is found out.
func TestOtherKernel(t *testing.T) {
	t.Parallel()
	testproc.NeedDeny(t)
	cmd := testproc.Command(t, "-json")
	cmd.Env = append(cmd.Env, prepareEnv+"="+deafPort)
	stdout, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, term.No, status)
	assert.Regexp(t, `^matrix: \d+ differences from the rules\n$`, stderr)
	want := committed(t)
	differences := 0
	for _, r := range decode(t, stdout) {
		rules := want[key(r.Row)]
		for _, opts := range []*[]string{&r.A, &r.B} {
			*opts = slices.DeleteFunc(*opts, func(o string) bool { return o == "port" })
		}
		assert.Equal(t, want[key(r.Row)], r.Outcome, key(r.Row))
		if r.Outcome != rules {
			differences++
		}
	}
	assert.NotZero(t, differences)

	cmd = testproc.Command(t)
	cmd.Env = append(cmd.Env, prepareEnv+"="+deafPort)
	stdout, _, status = testproc.Run(t, cmd)
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, fmt.Sprintf("\n%d differences from the rules of ", differences))
}

// A page that cannot be written to its end is not there, and the old one is.
func TestPageCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page := filepath.Join(dir, "page.html")
	require.NoError(t, os.WriteFile(page, []byte("old"), 0o600))
	cmd := testproc.Command(t, "-os", "linux", "-html", page)
	cmd.Env = append(cmd.Env, prepareEnv+"="+small)
	stdout, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, 2, status)
	assert.Empty(t, stdout)
	assert.Regexp(t, `^matrix: -html: write .*page\.html.*: file too large\n$`, stderr)
	data, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.Equal(t, "old", string(data))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}

// Ctrl-C waits until the page is written.
func TestPageInterrupted(t *testing.T) {
	for _, fails := range []error{nil, io.ErrUnexpectedEOF} {
		dir := t.TempDir()
		page := filepath.Join(dir, "page.html")
		require.NoError(t, os.WriteFile(page, []byte("old"), 0o600))
		seen := make(chan os.Signal, 1)
		signal.Notify(seen, os.Interrupt)
		err := replace(page, func(w io.Writer) error {
			for range 2 { // when the second is seen, everybody has seen the first
				require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT))
				<-seen
			}
			_, err := io.WriteString(w, "new")
			return errors.Join(err, fails)
		})
		signal.Stop(seen)
		assert.ErrorIs(t, err, term.ErrInterrupted)
		data, err := os.ReadFile(page)
		require.NoError(t, err)
		assert.Equal(t, map[bool]string{true: "new", false: "old"}[fails == nil], string(data))
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 1)
	}
}
