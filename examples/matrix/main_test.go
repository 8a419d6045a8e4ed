//go:build (unix || windows) && !android && !ios

package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// What the running kernel does is what the rules of its system say.
func TestRunning(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Run(t, testproc.Command(t, "-json"))
	if runtime.GOOS == "windows" || testproc.OnGVisor() {
		t.Skip("this may be Wine or gVisor, which have rules of their own")
	}
	require.Equal(t, 0, status, stderr)
	if runtime.GOOS == "linux" && stderr == "" { // with IPv6
		assert.Equal(t, 576, strings.Count(out, "\n"))
	}
}

// Each table is printed once, with all that it holds for.
func TestTables(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Run(t, testproc.Command(t, "-os", "linux"))
	require.Equal(t, 0, status, stderr)
	assert.Contains(t, out, `
       -   A   P  AP
   -   x   x   x   x
   A   x   x   x   x
   P   x   x  ok  ok
  AP   x   x  ok  ok
  tcp listening: 127.0.0.1 then 127.0.0.1; 0.0.0.0 then 127.0.0.1; `)
	assert.Equal(t, 3, strings.Count(out, "\n   A "))
	out, stderr, status = testproc.Run(t, testproc.Command(t, "-os", "linux", "-json"))
	require.Equal(t, 0, status, stderr)
	assert.Contains(t, out, `{"os":"linux","release":"","proto":"tcp","state":"listening","a_addr":"wildcard6only","b_addr":"wildcard","a_opts":[],"b_opts":["addr","port"],"same_uid":true,"outcome":"ok"}`)
	for _, s := range semantics.Systems() {
		cmd := testproc.Command(t, "-os", s.Name())
		cmd.Env = append(cmd.Env, "COLUMNS=40")
		out, stderr, status := testproc.Run(t, cmd)
		assert.Equal(t, 0, status, stderr)
		testproc.Narrow(t, 40, out)
	}
}

// What a kernel does against the rules is marked.
func TestDifferences(t *testing.T) {
	s, rows, err := matrix("linux")
	require.NoError(t, err)
	rows[0].Outcome, rows[1].Outcome = "ok", ""
	var out bytes.Buffer
	term.Out = &out
	show(s, rows)
	assert.Contains(t, out.String(), "\n   - !ok  !?   x   x\n")
}
