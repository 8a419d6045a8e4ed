package reuse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// refuse makes the kernel answer a system call with an errno, for the rest of this
// process: setsockopt of SO_REUSEPORT, whose second and third argument are the level
// and the name, or another call whatever its arguments are.
func refuse(call int, errno syscall.Errno) error {
	const (
		number = 0 // offsets in struct seccomp_data, of the lower halves
		level  = 24
		name   = 32
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(k int, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(k), Jf: skip}
	}
	ret := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	program := []unix.SockFilter{
		load(number), unless(call, 5),
		load(level), unless(unix.SOL_SOCKET, 3),
		load(name), unless(unix.SO_REUSEPORT, 1),
		ret(unix.SECCOMP_RET_ERRNO | uint32(errno)),
		ret(unix.SECCOMP_RET_ALLOW),
	}
	if call != unix.SYS_SETSOCKOPT { // whatever its arguments
		program = append(append(program[:1:1], unless(call, 1)), program[6:]...)
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	return nil
}

// refused is a child whose kernel refuses SO_REUSEPORT with the errno that is its
// argument. It answers with the first promise that was not kept.
func refused(args []string, _ *bufio.Scanner, out io.Writer) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	errno := syscall.Errno(n)
	unsupported := errno == unix.ENOPROTOOPT || errno == unix.EOPNOTSUPP || errno == unix.ENOSYS
	if err := refuse(unix.SYS_SETSOCKOPT, errno); err != nil {
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
			return fmt.Errorf("%s: the errno is lost: %v", name, err)
		case !errors.As(err, &oe) || oe.Option != reuse.Port || !errors.As(err, &ne):
			return fmt.Errorf("%s: the option is not named: %v", name, err)
		case errors.Is(err, errors.ErrUnsupported) != unsupported:
			return fmt.Errorf("%s: ErrUnsupported: %v", name, err)
		}
		if err := use(reuse.Config{Port: reuse.Prefer}); (err == nil) != unsupported {
			return fmt.Errorf("%s: Prefer forgives only what is unsupported: %v", name, err)
		}
		if after := openFiles(); after != before {
			return fmt.Errorf("%s: %d descriptors, were %d", name, after, before)
		}
	}
	// Off needs the option only where it is there to be cleared.
	if err := bind(ctx, reuse.Config{Port: reuse.Off}, "tcp4", "127.0.0.1:0"); (err == nil) != unsupported {
		return fmt.Errorf("Off: %v", err)
	}
	err = reuse.Port.Supported()
	if !errors.Is(err, errno) || errors.Is(err, errors.ErrUnsupported) != unsupported {
		return fmt.Errorf("Supported: %v", err)
	}
	return nil
}

// filtered is a child that gets no socket, with an errno that would otherwise mean
// that something is not supported.
func filtered(_ []string, _ *bufio.Scanner, out io.Writer) error {
	if err := refuse(unix.SYS_SOCKET, unix.ENOSYS); err != nil {
		fmt.Fprintln(out, "skip:", err)
		return nil
	}
	fmt.Fprintln(out, "refusing")
	err := reuse.Port.Supported()
	if !errors.Is(err, unix.ENOSYS) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("without a socket: %v", err)
	}
	return nil
}

// A probe that got no socket tells nothing, whatever the errno.
func TestSupportedWithoutSocket(t *testing.T) {
	t.Parallel()
	needFilter(t)
	if answer := testproc.Start(t, "filtered").Receive(); answer != "refusing" {
		t.Skip(answer)
	}
}

// What the kernel says to setsockopt is found in the error, and Prefer forgives it
// only if it says that there is no such option.
func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	needFilter(t)
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

// needFilter skips a test where the filters of this file do not fit.
func needFilter(t testing.TB) {
	switch runtime.GOARCH {
	case "386", "s390x":
		t.Skip("setsockopt is not a system call of its own here")
	case "mips", "mips64", "ppc64":
		t.Skip("the filter is written for little-endian machines")
	}
}
