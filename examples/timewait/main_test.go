//go:build !android && !ios

package main

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// A Go server can listen again at once, whatever is left of its connections. On Linux what
// is left keeps the options of the old listener, so both need the same one.
func TestTable(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, stderr, status := testproc.Run(t, cmd)
	require.Equal(t, 0, status, "%s%s", out, stderr)
	testproc.Narrow(t, 40, out)
	assert.Regexp(t, `(?s)closed\s+its connection first:\n.*?\n  net +yes .*still open`, out)
	if runtime.GOOS != "linux" || testproc.OnGVisor() { // which does not show its sockets
		return
	}
	const table = `:
  old, new:  net  none  Port  Excl
  net        yes  no    no    yes
  none       no   no    no    no
  Port       no   no    yes   no
  Excl       yes  no    no    yes
The kernel keeps it as `
	assert.Contains(t, out, " first"+table+"TIME_WAIT.\n")
	assert.Contains(t, out, "still open"+table+"ESTABLISHED.\n")
}
