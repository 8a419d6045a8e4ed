//go:build !linux

package inuse

import "example.com/reuse/internal/testproc"

func children() map[string]testproc.Child { return nil }
