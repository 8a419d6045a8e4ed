//go:build !linux

package reuse_test

import (
	"syscall"
	"testing"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// systemChildren are children of tests that only one system has.
var systemChildren map[string]testproc.Child

// lacks says whether a socket does not have an option that others of its system have.
func lacks(testing.TB, syscall.Conn, reuse.Option) bool { return false }
