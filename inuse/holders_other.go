//go:build !linux && !windows

package inuse

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func (t target) look(context.Context) ([]Holder, string, error) {
	return nil, "", fmt.Errorf("%w: reading the sockets of %s", errors.ErrUnsupported, runtime.GOOS)
}

// dualStack reports whether package net makes a dual-stack socket for a wildcard.
func dualStack() bool { return runtime.GOOS != "openbsd" && runtime.GOOS != "dragonfly" }
