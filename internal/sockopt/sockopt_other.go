//go:build !unix && !windows

package sockopt

import "errors"

// Get fails: there are no socket options here.
func Get(fd uintptr, level, name int) (int, error) { return 0, errors.ErrUnsupported }

// Set fails: there are no socket options here.
func Set(fd uintptr, level, name, value int) error { return errors.ErrUnsupported }

// Stream fails: there are no socket options here.
func Stream(fd uintptr) (bool, error) { return false, errors.ErrUnsupported }

// V6Only fails: there are no socket options here.
func V6Only(fd uintptr) (bool, error) { return false, errors.ErrUnsupported }

// Unsupported reports whether err means that this system lacks an option.
func Unsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
