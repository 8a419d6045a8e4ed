//go:build unix && !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"bytes"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

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
