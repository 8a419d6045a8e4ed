//go:build !android && !ios

package main

import (
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

// Each peer sees the port that the other listens on, and the mistakes have their errors.
func TestPeersMeet(t *testing.T) {
	t.Parallel()
	out, stderr, status := testproc.Run(t, testproc.Command(t))
	if err := reuse.Port.Supported(); err != nil {
		assert.Equal(t, 2, status)
		assert.Contains(t, stderr, "reuse: set Port on "+runtime.GOOS+": unsupported")
		return
	}
	require.Equal(t, 0, status, "%s%s", out, stderr)
	out = strings.Join(strings.Fields(out), " ")
	listens := regexp.MustCompile(`^A listens on (127\.0\.0\.1:\d+), B on (127\.0\.0\.1:\d+),`).FindStringSubmatch(out)
	require.NotNil(t, listens, out)
	assert.Contains(t, out, "A sees "+listens[2])
	assert.Contains(t, out, "B sees "+listens[1])
	assert.Contains(t, out, `B reads "hello"`)
	if runtime.GOOS == "linux" {
		assert.Contains(t, out, reuse.ErrTupleInUse.Error())
		assert.Contains(t, out, "cannot assign requested address")
		assert.Contains(t, out, reuse.ErrSelfDial.Error())
	}
}
