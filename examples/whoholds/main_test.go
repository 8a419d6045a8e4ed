//go:build !android && !ios

package main

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
	"example.com/reuse/inuse"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Example(t, run, args...)
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"-nonsense"}, {":80", ":81"}, {"nonsense"}, {"127.0.0.1"}, {":0"}, {":65536"},
		{"-network", "ip", "127.0.0.1"}, {"-network", "\x1b[2J", ":80"}, {"\x1b[2J:80:"},
	} {
		stdout, stderr, status := example(t, args...)
		assert.Equal(t, term.Failed, status, "%q", args)
		assert.Empty(t, stdout)
		assert.NotEmpty(t, stderr)
		assert.NotContains(t, stderr, "\x1b")
	}
	for _, args := range [][]string{{}, {"-nonsense"}, {":80", ":81"}} {
		_, stderr, _ := example(t, args...)
		assert.Contains(t, stderr, "\nFor help: go run ./examples/whoholds -h\n")
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "whoholds", stdout, "json", "network network")
	testproc.Lost(t, run, "-h")
}

// What this process holds is shown, or it is said that this system does not.
func TestOwn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	stdout, stderr, status := example(t, l.Addr().String())
	if _, err := inuse.Holders(t.Context(), "tcp4", l.Addr().String()); errors.Is(err, errors.ErrUnsupported) {
		assert.Equal(t, term.Failed, status)
		assert.Contains(t, stderr, "unsupported")
		return
	}
	assert.Equal(t, term.OK, status, stderr)
	testproc.Lost(t, run, l.Addr().String())
	testproc.Lost(t, run, "-json", l.Addr().String())
	assert.Contains(t, stdout, " is held by ")
	assert.Contains(t, strings.Join(strings.Fields(stdout), " "), "listening on "+l.Addr().String())
	assert.True(t, strings.HasPrefix(stdout, "tcp "+l.Addr().String()+"\n\nSTATE"), stdout)
}
