//go:build !linux && !freebsd

package group_test

import "example.com/reuse/internal/testproc"

func systemChildren() map[string]testproc.Child { return nil }

func oldestGets() bool { return false } // of the systems that takesOver asks for
