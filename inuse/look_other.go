//go:build !linux && !windows && (!darwin || ios) && !freebsd && !netbsd && !openbsd

package inuse

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"example.com/reuse/internal/semantics"
)

func (t target) look(context.Context) ([]Holder, error) {
	return nil, fmt.Errorf("%w: which sockets there are on %s", errors.ErrUnsupported, runtime.GOOS)
}

// dualStack tells whether package net makes a dual-stack socket for a wildcard.
func dualStack() bool { return runtime.GOOS != "dragonfly" }

func unseen(semantics.Proto) string { return "" }
