// Package testproc lets tests run parts of themselves in other processes, and on Linux in
// other network namespaces, with the test binary alone.
//
// A test package calls Main from its TestMain with its children. A child exits when its
// standard input ends, at the latest when its parent exits.
package testproc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const childEnv = "REUSE_TEST_CHILD"

// A Child is the function of a child process. It reads lines from the test and answers
// each with one line.
type Child func(args []string, in *bufio.Scanner, out io.Writer) error

// Main runs the child that the environment names, or else the tests.
func Main(m *testing.M, children map[string]Child) {
	name := os.Getenv(childEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	child, ok := children[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "testproc: no child %q\n", name)
		os.Exit(2)
	}
	if err := child(os.Args[1:], bufio.NewScanner(os.Stdin), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testproc:", name+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A Process is a running child.
type Process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// Start starts a child of this test. The child is stopped when the test ends, and the test
// fails if the child fails.
func Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	return StartAs(t, nil, name, args...)
}

// StartAs is Start for a process with attributes, such as namespaces.
func StartAs(t testing.TB, attr *syscall.SysProcAttr, name string, args ...string) *Process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+name, "GORACE=atexit_sleep_ms=0 halt_on_error=1") // a race counts even if the child is killed
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		if cmd.ProcessState != nil { // killed
			return
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("child %s: %v", name, err)
		}
	})
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	return &Process{t, cmd, in, s}
}

// Kill kills the child, and returns when the system has closed its files.
func (p *Process) Kill() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	require.Error(p.t, p.cmd.Wait(), "the child ended by itself")
}

// Receive waits for a line.
func (p *Process) Receive() string {
	p.t.Helper()
	require.True(p.t, p.out.Scan(), "the child ended: %v", p.out.Err())
	return p.out.Text()
}

// Ask sends a line and waits for the answer.
func (p *Process) Ask(words ...string) string {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, strings.Join(words, " "))
	require.NoError(p.t, err)
	return p.Receive()
}

// OnGVisor reports whether the kernel is gVisor, whose rules differ from those of Linux.
func OnGVisor() bool {
	version, err := os.ReadFile("/proc/version")
	return err == nil && strings.Contains(string(version), "-gvisor")
}
