package testproc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const faultyEnv = "REUSE_TEST_FAULTY"

// Faults makes calls of this process fail: socket, bind, listen, setsockopt and
// getsockopt. A seccomp filter has the kernel ask the parent process about each of
// them, which lets it go on or answers with an errno. Deny needs a process for each
// errno and cannot count; this one can be told what to fail as often as one likes.
type Faults struct {
	t       testing.TB
	control int // to the parent
}

// A Call says what is called: its number and those arguments that tell it from others
// of that number.
type Call struct{ Number, A, B, C int }

func (c Call) String() string {
	switch c.Number {
	case unix.SYS_SOCKET:
		return fmt.Sprintf("socket(%d, %d, %d)", c.A, c.B, c.C)
	case unix.SYS_BIND:
		return fmt.Sprintf("bind(%d bytes)", c.C)
	case unix.SYS_LISTEN:
		return "listen"
	case unix.SYS_SETSOCKOPT:
		return fmt.Sprintf("setsockopt(%d, %d)", c.A, c.B)
	case unix.SYS_GETSOCKOPT:
		return fmt.Sprintf("getsockopt(%d, %d)", c.A, c.B)
	}
	return fmt.Sprintf("%d(%d, %d, %d)", c.Number, c.A, c.B, c.C)
}

// A Fault is what is to fail: with Nth the call with that place in the order, counted from
// 1, and otherwise every Call, or every one of a Number if the rest of it is zero. A zero
// Fault is none.
type Fault struct {
	Errno syscall.Errno
	Nth   int
	Call  Call
}

// Faulty runs the calling test once more, alone in a process whose calls can be made to
// fail, and passes its result on. It returns nil in the first one, where the test has
// nothing left to do. It needs Linux 5.7. The garbage collector is off in that process, as
// it closes descriptors that were forgotten.
func Faulty(t *testing.T) *Faults {
	t.Helper()
	NeedDeny(t)
	if os.Getenv(faultyEnv) == t.Name() {
		return faulty(t)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "faults")
	defer theirs.Close()

	exe, err := os.Executable()
	require.NoError(t, err)
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command(exe, "-test.run="+pattern, "-test.v", "-test.count=1", "-test.timeout=2m", fmt.Sprint("-test.short=", testing.Short()))
	// A signal would have the kernel ask twice about one call.
	cmd.Env = append(os.Environ(), faultyEnv+"="+t.Name(), "GORACE=atexit_sleep_ms=0", "GODEBUG=asyncpreemptoff=1", "GOGC=off")
	cmd.ExtraFiles = []*os.File{theirs}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	theirs.Close()
	watchErr := watch(pair[0])
	if err := cmd.Wait(); err != nil {
		t.Fatalf("in its own process: %v\n%s", err, out.String())
	}
	if strings.Contains(out.String(), "--- SKIP: "+t.Name()) {
		t.Skip(out.String())
	}
	require.Contains(t, out.String(), "--- PASS: "+t.Name(), "the test did not run in its process")
	require.NoError(t, watchErr)
	return nil
}

// faulty installs the filter in this process and hands its descriptor to the parent.
func faulty(t *testing.T) *Faults {
	const control = 3 // the first of ExtraFiles
	unix.CloseOnExec(control)
	calls := []uint32{unix.SYS_SOCKET, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT}
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for i, c := range calls {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c, Jt: uint8(len(calls) - i)})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	require.NoError(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		t.Skip("no seccomp filter that asks (it needs Linux 5.7): ", errno)
	}
	require.NoError(t, unix.Sendmsg(control, []byte("{}"), unix.UnixRights(int(fd)), nil, 0))
	require.NoError(t, unix.Close(int(fd)))
	return &Faults{t, control}
}

// Run calls do while something is to fail. It returns the calls that were made, those
// of all goroutines, and whether one failed.
func (f *Faults) Run(fault Fault, do func()) (seen []Call, hit bool) {
	f.t.Helper()
	f.tell(fault)
	do()
	r := f.tell(Fault{})
	return r.Seen, r.Hit
}

// A report is what the parent knows when it gets the next Fault.
type report struct {
	Seen []Call
	Hit  bool
}

func (f *Faults) tell(fault Fault) (r report) {
	f.t.Helper()
	message, err := json.Marshal(fault)
	require.NoError(f.t, err)
	_, err = unix.Write(f.control, message)
	require.NoError(f.t, err)
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(f.control, buf)
		if err == unix.EINTR {
			continue
		}
		require.NoError(f.t, err)
		require.NoError(f.t, json.Unmarshal(buf[:n], &r))
		return r
	}
}

// From linux/seccomp.h.
type (
	notification struct {
		id         uint64
		pid, flags uint32
		number     int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	response struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

// watch decides about the calls of a child until it ends.
func watch(control int) error {
	first, oob := make([]byte, 2), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(control, first, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 { // the child has skipped the test, or failed
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	listener := fds[0]
	defer unix.Close(listener)

	var fault Fault
	var r report
	buf := make([]byte, 1<<12)
	for {
		ready := []unix.PollFd{{Fd: int32(control), Events: unix.POLLIN}, {Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return err
		}
		if ready[1].Revents&unix.POLLIN != 0 {
			if err := decide(listener, fault, &r); err != nil {
				return err
			}
			continue
		}
		if ready[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(control, buf)
		if n == 0 || err == unix.ECONNRESET {
			return nil
		}
		fault = Fault{}
		answer, jerr := json.Marshal(r)
		if err := errors.Join(err, jerr, json.Unmarshal(buf[:max(n, 0)], &fault)); err != nil {
			return err
		}
		r = report{}
		if _, err := unix.Write(control, answer); err != nil {
			return err
		}
	}
}

// decide answers one call.
func decide(listener int, fault Fault, r *report) error {
	var asked notification
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); e != 0 {
		if e == unix.ENOENT || e == unix.EINTR { // the thread is gone, or was interrupted
			return nil
		}
		return os.NewSyscallError("ioctl", e)
	}
	c := Call{Number: int(asked.number)}
	switch asked.number {
	case unix.SYS_SOCKET:
		c.A, c.B, c.C = int(asked.args[0]), int(asked.args[1])&0xf, int(asked.args[2])
	case unix.SYS_BIND: // the length of the address tells its family
		c.C = int(asked.args[2])
	case unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT:
		c.A, c.B = int(asked.args[1]), int(asked.args[2])
	}
	answer := response{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	fails := fault.Errno != 0 && (fault.Nth == len(r.Seen)+1 ||
		fault.Nth == 0 && (fault.Call == c || fault.Call == Call{Number: c.Number}))
	if fails {
		answer.flags, answer.err = 0, -int32(fault.Errno)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer))); e != 0 {
		if e == unix.ENOENT {
			return nil
		}
		return os.NewSyscallError("ioctl", e)
	}
	r.Seen = append(r.Seen, c)
	r.Hit = r.Hit || fails
	return nil
}
