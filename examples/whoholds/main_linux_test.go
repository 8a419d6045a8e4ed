//go:build !android

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

// In a namespace of its own the whole output is known.
func TestOutput(t *testing.T) {
	if !testproc.Netns(t) {
		return
	}
	stdout, stderr, status := example(t, "127.0.0.1:8080")
	assert.Equal(t, term.No, status, stderr)
	assert.Equal(t, "tcp 127.0.0.1:8080\n\nNothing that is visible overlaps 127.0.0.1:8080.\n", stdout)

	require.NoError(t, os.WriteFile("/proc/self/comm", []byte("server"), 0))
	l, err := net.Listen("tcp4", "0.0.0.0:8080")
	require.NoError(t, err)
	defer l.Close()
	pid, uid := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getuid())
	stdout, stderr, status = example(t, "-network", "tcp4", "127.0.0.1:8080")
	assert.Equal(t, term.OK, status, stderr)
	assert.Equal(t, "tcp4 127.0.0.1:8080\n\n"+
		"STATE   LOCAL         REMOTE  UID  "+fmt.Sprintf("%-*s", len(pid)+2, "PID")+"COMMAND\n"+
		"LISTEN  0.0.0.0:8080  -       "+fmt.Sprintf("%-5s", uid)+pid+"  server\n\n"+
		"127.0.0.1:8080 is held by pid "+pid+" (server), listening on 0.0.0.0:8080\n"+
		"(socket of uid "+uid+"). Linux refuses any overlapping bind beside a listening\n"+
		"socket unless both set SO_REUSEPORT under the same user.\n\n"+
		"- reuse.Config{Port: reuse.On} works if pid "+pid+" set SO_REUSEPORT.\n"+
		"- Otherwise end the process, or use another port.\n", stdout)

	cmd := testproc.Command(t, "-network", "tcp4", "127.0.0.1:8080")
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	narrow, stderr, status := testproc.Run(t, cmd)
	assert.Equal(t, term.OK, status, stderr)
	table, text, found := strings.Cut(narrow, "  server\n\n")
	require.True(t, found, narrow)
	testproc.Narrow(t, 40, text)
	assert.True(t, strings.HasPrefix(stdout, table), narrow)
	assert.Equal(t, strings.Fields(stdout), strings.Fields(narrow))

	file, stderr, status := example(t, "-network", "unix", "/nonexistent/s")
	assert.Equal(t, term.OK, status, stderr)
	assert.Equal(t, "unix /nonexistent/s\n\nThe folder /nonexistent does not exist.\n\n- Make it before Listen, as os.MkdirAll does.\n", file)

	require.NoError(t, os.WriteFile("/proc/self/comm", []byte("\x1b[2J\u202e\u009b"), 0))
	stdout, stderr, status = example(t, "-json", "8080")
	assert.Equal(t, term.OK, status, stderr)
	for _, c := range stdout {
		assert.True(t, c == '\n' || c >= ' ' && c < 0x7f, "%U", c)
	}
	var report struct {
		Network, Address, Reason string
		Advice                   []string
		Holders                  []map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	assert.Equal(t, []string{"tcp", ":8080"}, []string{report.Network, report.Address})
	assert.NotEmpty(t, report.Advice)
	assert.Equal(t, []map[string]any{{
		"network": "tcp4", "state": "LISTEN", "local": "0.0.0.0:8080",
		"uid": float64(os.Getuid()), "pid": float64(os.Getpid()), "command": "\x1b[2J\u202e\u009b",
	}}, report.Holders)
}
