//go:build !android && !ios

package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"example.com/reuse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		status = run(args, &out, &errs)
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

// find returns what the groups of a pattern match in the output.
func find(t *testing.T, pattern, output string) []string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(output)
	require.NotNil(t, m, "no %s in:\n%s", pattern, output)
	return m[1:]
}

func TestPeersMeet(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := example(t)
	if err := reuse.Port.Supported(); err != nil {
		assert.Equal(t, 1, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "reuse: set Port on "+runtime.GOOS+": unsupported")
		assert.Contains(t, stderr, "dial from another")
		return
	}
	require.Equal(t, 0, status, "%s%s", stdout, stderr)
	assert.Empty(t, stderr)

	a := find(t, `A listens on (127\.0\.0\.1:\d+)`, stdout)
	b := find(t, `B listens on (127\.0\.0\.1:\d+)`, stdout)
	assert.NotEqual(t, a, b)
	assert.Equal(t, b, find(t, `A sees (127\.0\.0\.1:\d+)`, stdout))
	assert.Equal(t, a, find(t, `B sees (127\.0\.0\.1:\d+)`, stdout))
	assert.Contains(t, stdout, `B reads "hello from A"`)

	second := find(t, `(?s)B dials A, too(.*)A dials itself`, stdout)[0]
	assert.Contains(t, second, reuse.ErrTupleInUse.Error())
	kernel := find(t, `The kernel said:\n    connect: (.+)`, second)[0]
	if runtime.GOOS == "linux" {
		assert.Equal(t, "cannot assign requested address", kernel)
	}
	assert.Contains(t, second, `A reads "hello from B"`)

	if self := find(t, `(?s)A dials itself(.*)Both listen`, stdout)[0]; runtime.GOOS == "linux" {
		assert.Contains(t, self, reuse.ErrSelfDial.Error())
	}
	find(t, `A accepts 127\.0\.0\.1:\d+`, stdout)
	find(t, `B accepts 127\.0\.0\.1:\d+`, stdout)
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-nonsense"}, {"nonsense"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			stdout, stderr, status := example(t, args...)
			assert.Equal(t, 2, status)
			assert.Empty(t, stdout)
			assert.NotEmpty(t, stderr)
		})
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, 0, status)
	assert.Contains(t, stdout+stderr, "Not on Windows and illumos")
}
