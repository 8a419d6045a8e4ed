package testproc

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Arg is an argument of a system call, counted from 0, and its value.
type Arg struct{ Index, Value int }

// Deny installs a seccomp filter, by which a system call with certain arguments fails with
// an errno for the rest of this process. It is for a child, see NeedDeny.
func Deny(errno syscall.Errno, call int, args ...Arg) error {
	return deny(unix.SECCOMP_FILTER_FLAG_TSYNC, errno, call, args)
}

// WhileDenied calls do on a thread of its own that has the filter of Deny. It returns an
// error if the filter cannot be installed.
func WhileDenied(do func(), errno syscall.Errno, call int, args ...Arg) (err error) {
	var thread sync.WaitGroup
	thread.Go(func() {
		runtime.LockOSThread() // and no unlock: the thread ends with its filter
		if err = deny(0, errno, call, args); err == nil {
			do()
		}
	})
	thread.Wait()
	return err
}

func deny(flags uintptr, errno syscall.Errno, call int, args []Arg) error {
	// Offsets in struct seccomp_data, of the lower halves of the fields.
	conditions := [][2]int{{0, call}}
	for _, a := range args {
		conditions = append(conditions, [2]int{16 + 8*a.Index, a.Value})
	}
	var program []unix.SockFilter
	for i, c := range conditions {
		allow := uint8(2*(len(conditions)-i) - 1) // instructions to skip
		program = append(program,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(c[0])},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(c[1]), Jf: allow})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	return nil
}

// NeedDeny skips a test where Deny does not work.
func NeedDeny(t testing.TB) {
	t.Helper()
	switch runtime.GOARCH {
	case "386", "s390x":
		t.Skip("the socket calls are not system calls of their own here")
	case "mips", "mips64", "ppc64":
		t.Skip("the filter is written for little-endian machines")
	}
}
