//go:build !unix && !windows

package term

import "os"

// On js, wasip1 and Plan 9 a program cannot ask, or the terminal has no escape
// sequences.
func isTerminal(*os.File) bool { return false }

func size(*os.File) (columns, rows int) { return 0, 0 }
