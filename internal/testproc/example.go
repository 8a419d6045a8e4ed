package testproc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
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
// the processes that Command starts, and in those that have one of the variables by
// which the program knows its children; elsewhere it runs the tests.
func MainExample(m *testing.M, main func(), children ...string) {
	for _, name := range append(children, exampleEnv) {
		if os.Getenv(name) != "" {
			main()
			os.Exit(0)
		}
	}
	// Without this each process sleeps a second at its end under -race.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 "+os.Getenv("GORACE")))
	os.Exit(m.Run())
}

// Command returns the example, to be run in a process of its own. A test skips where
// there are no processes.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	if !processes() {
		t.Skip("no processes on " + runtime.GOOS)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), exampleEnv+"=1", "COLUMNS=")
	return cmd
}

func processes() bool { return runtime.GOOS != "js" && runtime.GOOS != "wasip1" }

// Run runs a command and returns what it prints and its exit status. As it reads to
// the end, it waits for those, too, to whom the command has given its standard error.
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

// Example runs an example: by Command, or where there are no processes by a call of
// the function that its main calls.
func Example(t testing.TB, run func(args []string, stdout, stderr io.Writer) int, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	if processes() {
		return Run(t, Command(t, args...))
	}
	var out, errs bytes.Buffer
	status = run(args, &out, &errs)
	return out.String(), errs.String(), status
}

// Begin starts a command and returns what reads its output.
func Begin(t testing.TB, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return bufio.NewReader(out)
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

// Lost fails a test if an example does not when what it prints cannot be written. The
// example runs in the test's process.
func Lost(t testing.TB, run func(args []string, stdout, stderr io.Writer) int, args ...string) {
	t.Helper()
	var errs bytes.Buffer
	assert.Equal(t, 2, run(args, full{}, &errs), "%v", args)
	assert.Contains(t, errs.String(), errFull.Error())
}

var errFull = errors.New("no room for what is printed")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// Narrow fails a test for lines that are wider than a number of columns.
func Narrow(t testing.TB, columns int, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		line = strings.ReplaceAll(line, "    \t", "        ") // as package flag indents
		assert.LessOrEqual(t, utf8.RuneCountInString(line), columns, line)
	}
}

// Help tells whether what an example prints for -h has the form that all have, and
// the flags.
func Help(t testing.TB, name, stdout string, flags ...string) {
	t.Helper()
	Narrow(t, 80, stdout)
	assert.True(t, strings.HasPrefix(stdout, "Usage: go run ./examples/"+name), stdout)
	at := 0
	for _, part := range []string{"\n\nSystems: ", "\n\nExit status: 0 ", "\n  130 ", "\n\nExamples:\n  go run ./examples/" + name} {
		next := strings.Index(stdout, part)
		assert.Greater(t, next, at, "%q in its place in:\n%s", part, stdout)
		at = max(at, next)
	}
	assert.Equal(t, len(flags) > 0, strings.Contains(stdout[at:], "\n\nFlags:\n"), stdout)
	for _, f := range flags {
		assert.Contains(t, stdout, "\n  -"+f+"\n", stdout)
	}
}
