//go:build !android && !ios

package main

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
	"example.com/reuse/inuse"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// What this process holds is shown, with what helps. Another address of its port is free.
func TestHolder(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	address := l.Addr().String()
	cmd := testproc.Command(t, "-network=tcp4", address)
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	out, stderr, status := testproc.Run(t, cmd)
	if _, err := inuse.Holders(t.Context(), "tcp4", address); errors.Is(err, errors.ErrUnsupported) {
		assert.Equal(t, 2, status)
		assert.Contains(t, stderr, "unsupported")
		return
	}
	require.Equal(t, 0, status, stderr)
	assert.Regexp(t, `^tcp4 `+address+`\n\nSTATE .*\nLISTEN +`+address, out)
	_, text, _ := strings.Cut(out, "\n\n"+address)
	testproc.Narrow(t, 40, text)
	assert.Contains(t, strings.Join(strings.Fields(text), " "), "is held by ")
	if runtime.GOOS == "linux" {
		assert.Contains(t, text, "\n\n- reuse.Config{Port: reuse.On} works")
	}

	_, port, _ := net.SplitHostPort(address)
	out, stderr, status = testproc.Run(t, testproc.Command(t, "127.86.21.7:"+port)) // nothing else can have it: the wildcard is refused
	assert.Equal(t, 1, status, "%s%s", out, stderr)
	assert.Contains(t, out, "Nothing that is visible overlaps")
}
