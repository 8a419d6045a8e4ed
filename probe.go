package reuse

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"

	"example.com/reuse/internal/sockopt"
)

// answers are the conclusive results of probes, which hold as long as the
// process: a kernel does not gain or lose an option.
var answers struct {
	sync.Mutex
	known  options
	errors [lastOption + 1]error
}

// isShown reports whether a change of an option has been read back.
func isShown(o Option) bool {
	answers.Lock()
	defer answers.Unlock()
	return answers.known.has(o) && answers.errors[o] == nil
}

func keep(o Option, err error) {
	answers.Lock()
	defer answers.Unlock()
	answers.known |= set(o)
	answers.errors[o] = err
}

// probed tells whether the system has an option, by trying it if the build alone
// does not decide.
func probed(o Option) error {
	p, e := promised(o), table(o)
	if p.holds == 0 {
		return unsupportedReason(p.why)
	}
	if e.name == 0 {
		return nil // the kernel guarantees it
	}
	answers.Lock()
	known, err := answers.known.has(o), answers.errors[o]
	answers.Unlock()
	if known {
		return err
	}
	err = probeOption(o, e)
	if err == nil || isUnsupported(err) {
		keep(o, err)
	}
	return err
}

// errProbed ends a probe's Listen before it binds.
var errProbed = errors.New("probed")

// probeOption sets an option on a socket that it does not bind. All the options
// can be set on a TCP socket.
func probeOption(o Option, e entry) error {
	var result, failure error
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		if err := rc.Control(func(fd uintptr) { _, result = e.write(fd, o, 1) }); err != nil {
			return err
		}
		return errProbed
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

// isUnsupported tells whether err says that an option does not exist.
func isUnsupported(err error) bool {
	var i inconclusive
	return !errors.As(err, &i) && sockopt.Unsupported(err)
}

// inconclusive is an error that tells nothing about an option, even if it is one
// that would: socket may fail with ENOSYS where it is filtered.
type inconclusive struct{ err error }

func (e inconclusive) Error() string { return "could not find out: " + e.err.Error() }

func (e inconclusive) Is(target error) bool {
	return target != errors.ErrUnsupported && errors.Is(e.err, target)
}

func (e inconclusive) As(target any) bool { return errors.As(e.err, target) }
