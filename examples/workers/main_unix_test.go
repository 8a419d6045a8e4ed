//go:build unix && !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

package main

import (
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Ctrl-C goes to all processes of the terminal's job, the workers included. They
// stop, and what was counted until then is told.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	skipUnshared(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			cmd, stderr := example(t, "-connections=1000000")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			lines := startLines(t, cmd)
			out := waitFor(t, lines, "connections so far")
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, signal))
			rest, err := io.ReadAll(lines)
			require.NoError(t, err)
			require.NoError(t, cmd.Wait())
			assert.Empty(t, stderr.String())
			out += string(rest)
			assert.Contains(t, out, "\nInterrupted. Until then:\n")
			assert.Len(t, parseReport(t, out).workers, 4)
		})
	}
}
