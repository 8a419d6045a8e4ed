// Package testproc lets tests run parts of themselves as processes of their own,
// with nothing but the test binary: other processes, and on Linux other network
// namespaces.
//
// A test package calls Main from its TestMain and names what its children do.
// A child stops when its standard input ends, at the latest when its parent does.
package testproc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const childEnv = "REUSE_TEST_CHILD"

// A Child is what a child process does: it reads lines from the test and answers
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
	t    testing.TB
	in   io.WriteCloser
	out  *bufio.Scanner
	kill func() error // once
}

// Start starts a child of this test. It is stopped when the test ends, and its
// failure is the test's.
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
	cmd.Env = append(os.Environ(), childEnv+"="+name, "GORACE=atexit_sleep_ms=0") // which is 1 s in a race build
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill := sync.OnceValue(func() error {
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		if err := cmd.Wait(); err == nil {
			return fmt.Errorf("child %s ended by itself", name)
		}
		return nil
	})
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
	return &Process{t, in, s, kill}
}

// Kill kills the child, which cannot do anything about it, and returns when the
// system has closed what it had open.
func (p *Process) Kill() {
	p.t.Helper()
	require.NoError(p.t, p.kill())
}

// Send sends a line.
func (p *Process) Send(line string) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(p.t, err)
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
	p.Send(strings.Join(words, " "))
	return p.Receive()
}
