//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A description is what the kernel says of a way's listener: none of it is taken
// from a library's word.
type description struct {
	way     string
	options []string // in the order of descriptionHeads
}

func descriptionHeads() []string {
	return []string{"SO_REUSEADDR", "SO_REUSEPORT", "backlog", "TCP_DEFER_ACCEPT", "TCP_FASTOPEN", "`\"tcp\", \":0\"` is", "error is a `*net.OpError`"}
}

// describe asks the kernel about a listener of each way.
func (r *results) describe(context.Context, options) error {
	if err := multipath(false); err != nil {
		return err
	}
	for _, w := range ways() {
		l, err := w.listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		d := description{way: w.name}
		err = withFD(l, func(fd int) error {
			if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
				return errors.Join(fmt.Errorf("a listener with protocol %d cannot be compared", protocol), err)
			}
			for _, o := range []struct{ level, name int }{
				{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_REUSEPORT}, {},
				{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}, {unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
			} {
				v, err := unix.GetsockoptInt(fd, o.level, o.name)
				if o.name == 0 { // the backlog of a listener stands in this field
					var info *unix.TCPInfo
					if info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
						v = int(info.Sacked)
					}
				}
				if err != nil {
					return os.NewSyscallError("getsockopt", err)
				}
				d.options = append(d.options, dash(v))
			}
			return nil
		})
		if err == nil {
			var stack, typed string
			if stack, err = stackOf(w); err == nil {
				if typed, err = errorOf(w); err == nil {
					d.options = append(d.options, stack, typed)
				}
			}
		}
		l.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		r.descriptions = append(r.descriptions, d)
	}
	return nil
}

func dash(v int) string {
	if v == 0 {
		return "–"
	}
	return strconv.Itoa(v)
}

// stackOf tells which families ("tcp", ":0") listens on.
func stackOf(w way) (s string, err error) {
	l, err := w.listen("tcp", ":0")
	if err != nil {
		return "refused", nil
	}
	defer l.Close()
	err = withFD(l, func(fd int) error {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		if domain == unix.AF_INET {
			s = "IPv4"
			return nil
		}
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		if s = "dual-stack"; only != 0 {
			s = "IPv6"
		}
		return nil
	})
	return s, err
}

// errorOf tells what kind of error an address is that this machine has not.
func errorOf(w way) (string, error) {
	l, err := w.listen("tcp4", "192.0.2.1:0")
	if err == nil {
		l.Close()
		return "", fmt.Errorf("%s listens on an address of the documentation", w.name)
	}
	if errors.As(err, new(*net.OpError)) {
		return "yes", nil
	}
	return "no", nil
}

func withFD(l net.Listener, fn func(fd int) error) error {
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}
