package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/testproc"
)

var held []io.Closer // of a child

// systemCommands are what a process can be told on one system only. The words after the
// first are numbers, except for names.
var systemCommands = map[string]func(args []string) error{
	"deny": func(args []string) error { // errno, call, and an argument's index and value
		n, err := numbers(args)
		if err != nil {
			return err
		}
		return testproc.Deny(syscall.Errno(n[0]), n[1], testproc.Arg{Index: n[2], Value: n[3]})
	},
	"setuid": func(args []string) error {
		n, err := numbers(args)
		if err != nil {
			return err
		}
		return syscall.Setuid(n[0])
	},
	"exhaust": func(args []string) error { // all descriptors but that many
		n, err := numbers(args)
		if err != nil {
			return err
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}); err != nil {
			return err
		}
		for {
			f, err := os.Open("/dev/null")
			if errors.Is(err, unix.EMFILE) {
				break
			}
			if err != nil {
				return err
			}
			held = append(held, f)
		}
		for range n[0] {
			held[0].Close()
			held = held[1:]
		}
		return nil
	},
	"hold-name": func(args []string) error { // of a Unix socket
		l, err := net.Listen("unix", args[0])
		if err == nil {
			held = append(held, l)
		}
		return err
	},
	"knock": func(args []string) error { // says hello at a name, and fails if that is answered
		conn, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		l := &link{conn: conn.(*net.UnixConn)}
		if err := l.send(hello("x", l.conn)); err != nil {
			return nil // it has been dropped
		}
		if m, err := readMessage(l.conn); err == nil {
			return fmt.Errorf("answered by %v", m)
		}
		return nil
	},
	"landlock": func([]string) error { // no abstract socket of another domain
		attr := struct{ fs, net, scoped uint64 }{scoped: 1} // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
		if errno != 0 {
			return fmt.Errorf("no Landlock with scopes, which needs Linux 6.12: %w", errno)
		}
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); errno != 0 {
			return errno
		}
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
			return errno
		}
		return unix.Close(int(fd))
	},
	"files": func(args []string) error { // fails if more are open
		n, err := numbers(args)
		if have := openFiles(); err == nil && have > n[0] {
			err = fmt.Errorf("%d", have)
		}
		return err
	},
}

func numbers(args []string) (list []int, err error) {
	for _, a := range args {
		n, aerr := strconv.Atoi(a)
		list, err = append(list, n), errors.Join(err, aerr)
	}
	return list, err
}
