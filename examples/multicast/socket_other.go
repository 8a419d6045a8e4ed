//go:build !unix && !windows

package main

import "errors"

// There are no socket options here; package reuse says so before these are called.

func join(uintptr, [4]byte) error { return errors.ErrUnsupported }

func sendThroughLoopback(uintptr) error { return errors.ErrUnsupported }
