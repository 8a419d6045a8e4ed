//go:build unix && !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

// Who reads the result as JSON finds there that it is not all.
func TestInterruptJSON(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	cmd := testproc.Command(t, "-json", "-connections=1000000")
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	errs, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stderr := bufio.NewReader(errs)
	testproc.ReadTo(t, stderr, "connections so far")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(stderr)
	require.NoError(t, err)
	assert.Error(t, cmd.Wait())
	assert.Equal(t, term.Interrupted, cmd.ProcessState.ExitCode())
	assert.Contains(t, string(rest), "\nInterrupted.")
	var r result
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), stdout.String())
	assert.True(t, r.Interrupted)
	assert.Less(t, r.Connections, 1000000)
}

// Ctrl-C goes to all processes of the terminal's job, the workers included. They
// stop, and what was counted until then is told.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			stderr := new(bytes.Buffer)
			cmd := testproc.Command(t, "-connections=1000000")
			cmd.Stderr = stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			lines := testproc.Begin(t, cmd)
			out := testproc.ReadTo(t, lines, "connections so far")
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, signal))
			rest, err := io.ReadAll(lines)
			require.NoError(t, err)
			assert.Error(t, cmd.Wait())
			assert.Equal(t, term.Interrupted, cmd.ProcessState.ExitCode())
			assert.Empty(t, stderr.String())
			out += string(rest)
			assert.Contains(t, out, "\nInterrupted. Until then:\n")
			assert.Len(t, parseReport(t, out).workers, 4)
		})
	}
}
