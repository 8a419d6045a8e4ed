//go:build !linux && !windows

package inuse

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func (t target) holders(context.Context) ([]Holder, string, error) {
	return nil, "", fmt.Errorf("%w: reading the sockets of %s", errors.ErrUnsupported, runtime.GOOS)
}
