package term

import (
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pty returns the two sides of a terminal.
func pty(t *testing.T) (screen, program *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { screen.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { program.Close() })
	return screen, program
}

func resize(t *testing.T, f *os.File, columns, rows uint16) {
	t.Helper()
	require.NoError(t, unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
}

func TestTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Setenv("NO_COLOR", "")
	t.Setenv("COLUMNS", "77")
	screen, program := pty(t)
	resize(t, screen, 40, 12)
	s := New(program)
	assert.True(t, s.Live())
	columns, rows := s.Size()
	assert.Equal(t, []int{40, 12}, []int{columns, rows})
	resize(t, screen, 200, 50)
	columns, rows = s.Size()
	assert.Equal(t, []int{200, 50}, []int{columns, rows}, "after it was resized")
	resize(t, screen, 0, 0)
	columns, rows = s.Size()
	assert.Equal(t, []int{77, 24}, []int{columns, rows}, "a terminal that does not know")

	resize(t, screen, 5, 5)
	s.Draw(s.Bar(6, 0.5))
	want := "\x1b[36m███\x1b[0m░"
	got := make([]byte, len(want))
	_, err := io.ReadFull(screen, got)
	require.NoError(t, err)
	assert.Equal(t, want, string(got))

	t.Setenv("NO_COLOR", "1")
	assert.Equal(t, "██", New(program).Bar(2, 1))
	t.Setenv("LC_ALL", "C")
	assert.Equal(t, "##", New(program).Bar(2, 1))
	t.Setenv("TERM", "dumb")
	assert.False(t, New(program).Live())
}

func TestPipeIsNoTerminal(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	assert.False(t, New(w).Live())
}
