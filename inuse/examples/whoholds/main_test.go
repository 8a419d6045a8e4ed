//go:build !android && !ios

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/inuse"
)

// TestMain is the example itself in the processes that the tests start.
func TestMain(m *testing.M) {
	if os.Getenv("REUSE_EXAMPLE") == "1" {
		main()
	}
	if os.Getenv("GORACE") == "" { // a process built with -race ends with a second's sleep
		os.Setenv("GORACE", "atexit_sleep_ms=1")
	}
	os.Exit(m.Run())
}

// example runs the example in a process of its own, if there are processes.
func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		status = run(t.Context(), args, &out, &errs)
		return out.String(), errs.String(), status
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "REUSE_EXAMPLE=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"-nonsense"}, {":80", ":81"}, {"nonsense"}, {"127.0.0.1"}, {":0"}, {":65536"},
		{"-network", "unix", "/x"}, {"-network", "\x1b[2J", ":80"}, {"\x1b[2J:80:"},
	} {
		stdout, stderr, status := example(t, args...)
		assert.Equal(t, failed, status, "%q", args)
		assert.Empty(t, stdout)
		assert.NotEmpty(t, stderr)
		assert.NotContains(t, stderr, "\x1b")
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, 0, status)
	assert.Contains(t, stdout+stderr, "Exit status: 0 if the address is held, 1 if it is free, 2")
}

// What this process holds is shown, or it is said that this system does not.
func TestOwn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	stdout, stderr, status := example(t, l.Addr().String())
	if _, err := inuse.Holders(t.Context(), "tcp4", l.Addr().String()); errors.Is(err, errors.ErrUnsupported) {
		assert.Equal(t, failed, status)
		assert.Contains(t, stderr, "unsupported")
		return
	}
	assert.Equal(t, held, status, stderr)
	assert.Contains(t, stdout, " is held by ")
	assert.Contains(t, strings.Join(strings.Fields(stdout), " "), "listening on "+l.Addr().String())
	assert.True(t, strings.HasPrefix(stdout, "tcp "+l.Addr().String()+"\n\nSTATE"), stdout)
}
