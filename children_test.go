//go:build !linux

package reuse_test

import "example.com/reuse/internal/testproc"

// systemChildren are children of tests that only one system has.
var systemChildren map[string]testproc.Child
