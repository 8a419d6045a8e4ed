package term

import (
	"os"

	"golang.org/x/sys/windows"
)

// isTerminal tells whether f is a console, and has it obey escape sequences,
// which Windows 10 and later can do.
func isTerminal(f *os.File) bool {
	return control(f, func(h windows.Handle) error {
		var mode uint32
		if err := windows.GetConsoleMode(h, &mode); err != nil {
			return err
		}
		return windows.SetConsoleMode(h, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING)
	}) == nil
}

func size(f *os.File) (columns, rows int) {
	var info windows.ConsoleScreenBufferInfo
	err := control(f, func(h windows.Handle) error { return windows.GetConsoleScreenBufferInfo(h, &info) })
	if err != nil {
		return 0, 0
	}
	w := info.Window
	return int(w.Right-w.Left) + 1, int(w.Bottom-w.Top) + 1
}

func control(f *os.File, fn func(windows.Handle) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := rc.Control(func(fd uintptr) { fnErr = fn(windows.Handle(fd)) }); err != nil {
		return err
	}
	return fnErr
}
