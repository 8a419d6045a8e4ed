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

// Ctrl-C goes to all processes of the terminal's job, the servers included. The
// servers stop, and what was counted until then is printed.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		after  string
	}{
		{"first version", syscall.SIGINT, "1,000 restarts of"},
		{"after a restart", syscall.SIGINT, "version 2 started"},
		{"terminated", syscall.SIGTERM, "version 2 started"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stderr := new(bytes.Buffer)
			cmd := testproc.Command(t, "-restarts=1000")
			cmd.Stderr = stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			lines := testproc.Begin(t, cmd)
			testproc.ReadTo(t, lines, tt.after)
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, tt.signal))
			rest, err := io.ReadAll(lines)
			require.NoError(t, err)
			assert.Error(t, cmd.Wait())
			assert.Equal(t, term.Interrupted, cmd.ProcessState.ExitCode())
			assert.Empty(t, stderr.String())
			assert.Contains(t, string(rest), "\nfresh ")
		})
	}
}
