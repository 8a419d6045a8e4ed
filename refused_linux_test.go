package reuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// refused is a child whose kernel refuses SO_REUSEPORT with the errno that is its
// argument. It answers with the first promise that was not kept.
func refused(args []string, _ *bufio.Scanner, out io.Writer) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	errno := syscall.Errno(n)
	unsupported := errno == unix.ENOPROTOOPT || errno == unix.EOPNOTSUPP || errno == unix.ENOSYS
	err = testproc.Deny(errno, unix.SYS_SETSOCKOPT, testproc.Arg{Index: 1, Value: unix.SOL_SOCKET}, testproc.Arg{Index: 2, Value: unix.SO_REUSEPORT})
	if err != nil {
		fmt.Fprintln(out, "skip:", err)
		return nil
	}
	fmt.Fprintln(out, "refusing")
	ctx := context.Background()
	uses := map[string]func(reuse.Config) error{
		"Listen": func(c reuse.Config) error { return bind(ctx, c, "tcp4", "127.0.0.1:0") },
		"ListenPacket": func(c reuse.Config) error { // sets it after the bind
			return bind(ctx, c, "udp4", "127.0.0.1:0")
		},
		"Dial": func(c reuse.Config) error {
			c.PortLB = reuse.Default
			conn, err := c.Dial(ctx, "udp4", "127.0.0.1:0", "127.0.0.1:9")
			if err == nil {
				conn.Close()
			}
			return err
		},
	}
	if testproc.OnGVisor() { // port 0 is not shared, so that nothing is set after the bind
		delete(uses, "ListenPacket")
		delete(uses, "Dial")
	}
	for name, use := range uses {
		if err := use(reuse.Config{}); err != nil { // opens what the runtime keeps
			return err
		}
		before := openFiles()
		err := use(reuse.Config{Port: reuse.On})
		var oe *reuse.OptionError
		var ne *net.OpError
		switch {
		case !errors.Is(err, errno):
			return fmt.Errorf("%s: the errno is lost: %w", name, err)
		case !errors.As(err, &oe) || oe.Option != reuse.Port || !errors.As(err, &ne):
			return fmt.Errorf("%s: the option is not named: %w", name, err)
		case errors.Is(err, errors.ErrUnsupported) != unsupported:
			return fmt.Errorf("%s: ErrUnsupported: %w", name, err)
		}
		if err := use(reuse.Config{Port: reuse.Prefer}); (err == nil) != unsupported {
			return fmt.Errorf("%s: Prefer forgives only what is unsupported: %w", name, err)
		}
		if after := openFiles(); after != before {
			return fmt.Errorf("%s: %d descriptors, were %d", name, after, before)
		}
	}
	// Off needs nothing: the option is not set.
	if err := bind(ctx, reuse.Config{Port: reuse.Off}, "tcp4", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("Off: %w", err)
	}
	err = reuse.Port.Supported()
	if !errors.Is(err, errno) || errors.Is(err, errors.ErrUnsupported) != unsupported {
		return fmt.Errorf("Supported: %w", err)
	}
	return nil
}

// filtered is a child that gets no socket, with an errno that would otherwise mean
// that something is not supported.
func filtered(_ []string, _ *bufio.Scanner, out io.Writer) error {
	if err := testproc.Deny(unix.ENOSYS, unix.SYS_SOCKET); err != nil {
		fmt.Fprintln(out, "skip:", err)
		return nil
	}
	fmt.Fprintln(out, "refusing")
	err := reuse.Port.Supported()
	if !errors.Is(err, unix.ENOSYS) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("without a socket: %w", err)
	}
	return nil
}

// A probe that got no socket tells nothing, whatever the errno.
func TestSupportedWithoutSocket(t *testing.T) {
	t.Parallel()
	testproc.NeedDeny(t)
	if answer := testproc.Start(t, "filtered").Receive(); answer != "refusing" {
		t.Skip(answer)
	}
}

// What the kernel says to setsockopt is found in the error, and Prefer forgives it
// only if it says that there is no such option.
func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	testproc.NeedDeny(t)
	for _, errno := range []syscall.Errno{unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM, unix.EINVAL, unix.EACCES, unix.EADDRINUSE, unix.ENOMEM} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			t.Parallel()
			p := testproc.Start(t, "refused", strconv.Itoa(int(errno)))
			if answer := p.Receive(); answer != "refusing" {
				t.Skip(answer)
			}
		})
	}
}
