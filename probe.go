package reuse

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// A probeResult is the conclusive result of a probe: nil, or why something is
// unsupported. It holds for the life of the process, because a kernel does not gain or
// lose an option.
type probeResult struct {
	atomic.Pointer[error]
	probing sync.Mutex // one probe at a time, because it needs descriptors
}

// get returns the result, and probes if there is none.
func (r *probeResult) get(probe func() error) error {
	if known := r.Load(); known != nil {
		return *known
	}
	r.probing.Lock()
	defer r.probing.Unlock()
	if known := r.Load(); known != nil {
		return *known
	}
	err := probe()
	if err == nil || isUnsupported(err) {
		r.Store(&err)
	}
	return err
}

// probeResults has a result for each Option that has a socket option.
var probeResults [lastOption + 1]probeResult

// probe returns why the system lacks an option. If the build alone does not decide, it
// sets the option on a socket.
func (o Option) probe() error {
	if s := o.support(); s.kinds == 0 {
		return unsupportedReason(s.reason)
	}
	if o.sockOption().name == 0 {
		return nil // the kernel guarantees it
	}
	return probeResults[o].get(o.probeSocket)
}

// errProbed ends a probe's Listen before it binds.
var errProbed = errors.New("probed")

// probeSocket sets an option on a socket that it does not bind. Every option can be
// set on a TCP socket.
func (o Option) probeSocket() error {
	var result, failure error
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return sockopt.Control(rc, func(fd uintptr) error {
			_, result = o.write(fd, 1)
			return errProbed
		})
	}}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		_, err := lc.Listen(context.Background(), "tcp", address)
		if errors.Is(err, errProbed) {
			return result
		}
		failure = err
	}
	return inconclusive{failure}
}

// isUnsupported reports whether err says that an option does not exist.
func isUnsupported(err error) bool {
	var i inconclusive
	return !errors.As(err, &i) && sockopt.Unsupported(err)
}

// inconclusive is an error that says nothing about an option, even if it wraps an errno
// for unsupported: socket can fail with ENOSYS where it is filtered.
type inconclusive struct{ err error }

func (e inconclusive) Error() string { return "could not find out: " + e.err.Error() }

func (e inconclusive) Is(target error) bool {
	return target != errors.ErrUnsupported && errors.Is(e.err, target)
}

func (e inconclusive) As(target any) bool { return errors.As(e.err, target) }
