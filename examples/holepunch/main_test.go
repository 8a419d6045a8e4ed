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
	"example.com/reuse/internal/term"
	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.MainExample(m, main) }

func example(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return testproc.Example(t, run, args...)
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
		assert.Equal(t, term.Failed, status)
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
			assert.Equal(t, term.Failed, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "nonsense")
			assert.Contains(t, stderr, "\nFor help: go run ./examples/holepunch -h\n")
		})
	}
	stdout, stderr, status := example(t, "-h")
	assert.Equal(t, term.OK, status)
	assert.Empty(t, stderr)
	testproc.Help(t, "holepunch", stdout)
	testproc.Lost(t, run, "-h")
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	cmd := testproc.Command(t)
	cmd.Env = append(cmd.Env, "COLUMNS=40")
	stdout, _, _ := testproc.Run(t, cmd)
	testproc.Narrow(t, 40, stdout)
}

func TestOutputLost(t *testing.T) {
	t.Parallel()
	if err := reuse.Port.Supported(); err != nil {
		t.Skip(err)
	}
	testproc.Lost(t, run)
}
