package reuse

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/sockopt"
)

// answers are the conclusive results of probes, which hold as long as the
// process: a kernel does not gain or lose an option.
var answers struct {
	sync.Mutex
	known  options
	errors [lastOption + 1]error
}

// probed tells whether the system has an option, by trying it if the build alone
// does not decide.
func probed(o Option) error {
	v, e := verdict(o), table(o)
	if v.Holds == semantics.Nowhere {
		return refusal(v.Why)
	}
	if e.name == 0 {
		return nil // the kernel guarantees it
	}
	answers.Lock()
	defer answers.Unlock()
	if answers.known.has(o) {
		return answers.errors[o]
	}
	err := try(e)
	if err == nil || unsupported(err) {
		answers.known |= set(o)
		answers.errors[o] = err
	}
	return err
}

// errTried ends a probe's Listen before it binds.
var errTried = errors.New("tried")

// try sets an option on a socket that it does not bind. All the options can be
// set on a TCP socket.
func try(e entry) error {
	var result, failure error
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		if err := rc.Control(func(fd uintptr) { result = sockopt.Set(fd, e.level, e.name, 1) }); err != nil {
			return err
		}
		return errTried
	}}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		_, err := lc.Listen(context.Background(), "tcp", address)
		if errors.Is(err, errTried) {
			return result
		}
		failure = err
	}
	return inconclusive{failure}
}

// unsupported tells whether err says that an option does not exist.
func unsupported(err error) bool {
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
