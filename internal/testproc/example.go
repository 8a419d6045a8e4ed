package testproc

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const exampleEnv = "REUSE_EXAMPLE"

// MainExample is for TestMain of an example program. It is the program's own main in
// the processes that Command starts. Elsewhere it runs the tests.
func MainExample(m *testing.M, main func()) {
	if os.Getenv(exampleEnv) != "" {
		main()
		os.Exit(0)
	}
	// Without this each process sleeps a second at its end under -race.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 "+os.Getenv("GORACE")))
	os.Exit(m.Run())
}

// Command returns a command that runs the example in another process. It skips the test on
// systems without processes.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no processes on " + runtime.GOOS)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), exampleEnv+"=1", "COLUMNS=")
	return cmd
}

// Run runs a command and returns its output and exit status. It also waits for every
// process that inherited the standard error.
func Run(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ReadTo reads to the line that contains text, and returns all that it has read.
func ReadTo(t testing.TB, out *bufio.Reader, text string) (read string) {
	t.Helper()
	for !strings.Contains(read, text) {
		line, err := out.ReadString('\n')
		require.NoError(t, err, "no %q in:\n%s", text, read)
		read += line
	}
	return read
}

// Narrow checks that no line is wider than a number of columns.
func Narrow(t testing.TB, columns int, text string) {
	t.Helper()
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.ReplaceAll(line, "    \t", "        ") // as package flag indents
		assert.LessOrEqual(t, utf8.RuneCountInString(line), columns, line)
	}
}
