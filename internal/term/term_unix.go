//go:build unix

package term

import (
	"os"

	"golang.org/x/sys/unix"
)

// winsize asks a terminal for its size. Anything else does not know the question.
func winsize(f *os.File) (*unix.Winsize, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var ws *unix.Winsize
	var ioctlErr error
	if err := rc.Control(func(fd uintptr) { ws, ioctlErr = unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ) }); err != nil {
		return nil, err
	}
	return ws, ioctlErr
}

func isTerminal(f *os.File) bool {
	_, err := winsize(f)
	return err == nil
}

func size(f *os.File) (columns, rows int) {
	ws, err := winsize(f)
	if err != nil {
		return 0, 0
	}
	return int(ws.Col), int(ws.Row)
}
