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

// Ctrl-C goes to all processes of the terminal's job, the servers included. The
// servers stop, and what was counted until then is told.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		signal   syscall.Signal
		duration string
		after    string
	}{
		{"first version", syscall.SIGINT, "1m", "version 1 listens"},
		{"between restarts", syscall.SIGINT, "200ms", "version 3 "},
		{"terminated", syscall.SIGTERM, "1m", "version 1 listens"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd, stderr := example(t, "-restarts=50", "-duration="+tt.duration)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			lines := startLines(t, cmd)
			out := waitFor(t, lines, tt.after)
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, tt.signal))
			rest, err := io.ReadAll(lines)
			require.NoError(t, err)
			require.NoError(t, cmd.Wait())
			assert.Empty(t, stderr.String())
			out += string(rest)
			assert.Contains(t, out, "\nInterrupted. Until then:\n")
			assert.NotEmpty(t, parseReport(t, out).byVersion)
		})
	}
}
