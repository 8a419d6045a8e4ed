package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

var held []io.Closer // by a child

func number(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		panic(err)
	}
	return n
}

// systemCommands are the commands of a child on one system only.
var systemCommands = map[string]func(args []string) error{
	"deny": func(args []string) error { // errno, call, and an argument's index and value
		return testproc.Deny(syscall.Errno(number(args[0])), number(args[1]), testproc.Arg{Index: number(args[2]), Value: number(args[3])})
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
	"setuid": func(args []string) error { return syscall.Setuid(number(args[0])) },
	"exhaust": func(args []string) error { // all descriptors but that many
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
		for range number(args[0]) {
			held[0].Close()
			held = held[1:]
		}
		return nil
	},
	"bind": func(args []string) error { // a name
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
}

func notOnGVisor(t *testing.T, why string) {
	t.Helper()
	if testproc.OnGVisor() {
		t.Skip("gVisor: " + why)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can have processes of another user or network namespace")
	}
}

// What a seccomp filter refuses is not needed, nor is a folder that can be written, nor /proc.
func TestHandOverWithoutSystemCalls(t *testing.T) {
	testproc.NeedDeny(t)
	t.Parallel()
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EAFNOSUPPORT} {
		c := Config{Name: rand.Text()}
		old, next := child(t, c, nil), child(t, c, nil)
		deny := func(calls ...string) {
			for _, call := range calls {
				old.do(t, fmt.Sprint("deny ", int(errno), " ", call))
				next.do(t, fmt.Sprint("deny ", int(errno), " ", call))
			}
		}
		deny(
			fmt.Sprint(unix.SYS_MKDIRAT, " 2 ", 0o700),
			fmt.Sprint(unix.SYS_OPENAT, " 3 ", 0o600), // the mode of a new file
		)
		if os.Geteuid() != 65534 { // for which /proc/self/uid_map is read
			deny(fmt.Sprint(unix.SYS_OPENAT, " 3 ", 0)) // the mode of a file that is read
		}
		a := old.takeOver(t, "0")
		deny(
			fmt.Sprint(unix.SYS_GETSOCKOPT, " 2 ", unix.SO_NETNS_COOKIE),
			fmt.Sprint(unix.SYS_SETSOCKOPT, " 2 ", unix.SO_BINDTOIFINDEX),
			fmt.Sprint(unix.SYS_SOCKET, " 0 ", unix.AF_NETLINK),
			fmt.Sprint(unix.SYS_LISTEN, " 1 ", unix.SOMAXCONN), // of the rendezvous, which names the peer
		)
		require.Equal(t, a, next.takeOver(t, old.pid))
		old.do(t, "replaced")
		answers(t, next.pid, a)
	}
}

// What is needed, and refused by seccomp or Landlock, is named. SELinux and AppArmor have
// the same errno.
func TestRefusedSystemCallIsNamed(t *testing.T) {
	testproc.NeedDeny(t)
	t.Parallel()
	c := Config{Name: rand.Text()}
	old := child(t, c, nil)
	a := old.takeOver(t, "0")
	for _, tt := range []struct {
		errno                   syscall.Errno
		call, argument, refused int
		err                     string
	}{
		{unix.EPERM, unix.SYS_SOCKET, 0, unix.AF_UNIX, "operation not permitted"},
		{unix.EAFNOSUPPORT, unix.SYS_SOCKET, 0, unix.AF_UNIX, "the family AF_UNIX is not available"},
		{unix.EPERM, unix.SYS_CONNECT, 2, 2 + len(c.meetingPlace()), "may not connect to " + c.meetingPlace() + "; set Dir"},
		{unix.EPERM, unix.SYS_GETSOCKOPT, 2, unix.SO_PEERCRED, "getsockopt: operation not permitted"},
	} {
		next := child(t, c, nil)
		next.do(t, fmt.Sprint("deny ", int(tt.errno), " ", tt.call, " ", tt.argument, " ", tt.refused))
		assert.Contains(t, next.Ask("start"), tt.err)
		answers(t, old.pid, a)
	}
}

// Landlock separates abstract sockets. A Dir works.
func TestDirWorksUnderLandlock(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		old.takeOver(t, "0")
		next := child(t, c, nil)
		if answer := next.Ask("landlock"); answer != "ok" {
			t.Skip(answer)
		}
		answer := next.Ask("start")
		if c.Dir == "" {
			assert.Contains(t, answer, "may not connect to "+c.meetingPlace()+"; set Dir")
		} else {
			assert.Equal(t, old.pid, answer)
		}
	})
}

// A process without a free descriptor hands over, and one that has too few to take over
// changes nothing.
func TestHandOverNeedsNoFreeDescriptor(t *testing.T) {
	notOnGVisor(t, "recvmsg does not say that a descriptor was dropped")
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		a := old.takeOver(t, "0")
		free := 0
		for ; ; free++ {
			require.Less(t, free, 30)
			next := child(t, c, nil)
			next.do(t, fmt.Sprint("exhaust ", free))
			answer := next.Ask("start")
			if answer == old.pid {
				answer = next.Ask("listen")
			}
			next.Kill()
			if answer == a.String() {
				break
			}
			require.Contains(t, answer, "too many open files")
			answers(t, old.pid, a)
		}
		assert.Positive(t, free)
		old.do(t, "exhaust 0")
		next, l := listening(t, c)
		answerAll(l, "new")
		ready(t, next)
		old.do(t, "replaced")
		answers(t, "new", a)
	})
}

// Another user can bind the abstract name, but not find out or take anything.
func TestAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	needRoot(t)
	c := Config{Name: rand.Text()}
	other := child(t, c, nil)
	other.do(t, "setuid 1")
	p := begin(t, c)
	ready(t, p)
	other.do(t, "knock "+c.meetingPlace())
	require.NoError(t, p.Close())
	// A process that another test starts has what is open here until its exec.
	require.Eventually(t, func() bool { return other.Ask("bind", c.meetingPlace()) == "ok" }, 10*time.Second, time.Millisecond)
	_, err := c.Start(soon(t))
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "is held by uid 1 (pid ")
	if !testproc.OnGVisor() { // which tells the id of a thread
		assert.ErrorContains(t, err, "(pid "+other.pid+"), not by uid 0; set Dir")
	}
	c.Dir = folder(t)
	begin(t, c)
}

// In a user namespace a user may have another number, and all foreign users have one.
func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	needRoot(t)
	mapped := func(uid int) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: 0, Size: 1}}}
	}
	c := Config{Name: "web", Dir: folder(t)}
	for _, attrs := range [][2]*syscall.SysProcAttr{{nil, mapped(1000)}, {mapped(1000), nil}} {
		old, next := child(t, c, attrs[0]), child(t, c, attrs[1])
		a := old.takeOver(t, "0")
		require.Equal(t, a, next.takeOver(t, old.pid))
		old.do(t, "replaced")
		next.Kill()
	}
	c = Config{Name: rand.Text()}
	name := "@reuse/handover/1/65534/" + c.Name
	foreign, inside := child(t, c, nil), child(t, c, mapped(65534))
	foreign.do(t, "setuid 1", "bind "+name)
	answer := inside.Ask("start")
	if !testproc.OnGVisor() { // there it can be the number of a thread
		assert.Contains(t, answer, "(pid "+foreign.pid+")")
	}
	assert.Contains(t, answer, "is held by uid 65534 (pid ")
	assert.Contains(t, answer, "as which every user outside this user namespace appears; set Dir")
	foreign.Kill()
	require.Equal(t, "0", inside.Ask("start"))
	child(t, c, nil).do(t, "setuid 1", "knock "+name)
}

// A path is found from another network namespace, where its sockets are of no use.
func TestAnotherNetworkNamespaceIsRefused(t *testing.T) {
	needRoot(t)
	eachPlace(t, func(t *testing.T, c Config) {
		_, l := current(t, c)
		answer := child(t, c, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}).Ask("start")
		if c.Dir == "" {
			assert.Equal(t, "0", answer)
		} else {
			assert.Contains(t, answer, fmt.Sprintf("pid %d (uid 0) at %s is in another network namespace", os.Getpid(), c.meetingPlace()))
		}
		answers(t, "old", l.Addr())
	})
}

func TestFullQueueIsNotAFreePlace(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		r := claim(t, c)
		require.NoError(t, control(r.listener, func(fd int) error { return unix.Listen(fd, 0) }))
		for {
			conn, err := net.Dial("unix", c.meetingPlace())
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := c.Start(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, c.meetingPlace())
		r.close(false)
		begin(t, c)
	})
}

// Descriptors that are sent to the current process do not stay in it.
func TestSentDescriptorsAreDropped(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		old.takeOver(t, "0")
		begin(t, c).Close() // opens what the runtime keeps
		pid := number(old.pid)
		files := openFiles(pid)
		null, err := os.Open("/dev/null")
		require.NoError(t, err)
		defer null.Close()
		h := connect(t, c)
		_, _, err = h.conn.WriteMsgUnix(h.hello(), unix.UnixRights(slices.Repeat([]int{int(null.Fd())}, 250)...), nil)
		require.NoError(t, err)
		h.read() // an answer, so the hello has been read
		assert.Less(t, openFiles(pid), files+9, "and a few connections")
	})
}

// A Drain loses nothing that is queued, also in a process that is stopped during it.
func TestDrainOfStoppedProcessLosesNothing(t *testing.T) {
	notOnGVisor(t, "a listener cannot be hidden")
	eachPlace(t, func(t *testing.T, c Config) {
		p := child(t, c, nil)
		require.Equal(t, "0", p.Ask("start"))
		a := address{"tcp4", p.Ask("listen")}
		p.do(t, "ready")
		var queued []net.Conn
		for ctx := soon(t); ; {
			conn, err := net.Dial(a.network, a.address)
			if errors.Is(err, unix.ECONNREFUSED) {
				break // it is hidden
			}
			require.NoError(t, errors.Join(err, ctx.Err()))
			if queued = append(queued, conn); len(queued) == 3 {
				p.do(t, "drain")
			}
		}
		pid := number(p.pid)
		stop(t, pid)
		time.Sleep(60 * time.Millisecond) // it must miss the time after which it would close
		require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
		p.do(t, "serve")
		for _, conn := range queued {
			answered(t, p.pid, conn)
		}
		p.do(t, "drained")
	})
}

// A handshake that is open when the listener is hidden has 20 ms to finish.
func TestDrainAwaitsHandshake(t *testing.T) {
	notOnGVisor(t, "a listener cannot be hidden")
	t.Parallel()
	for range 100 { // until the machine is not too busy
		p := begin(t, Config{Control: func(_, _ string, rc syscall.RawConn) error { // a handshake ends with the client's first byte
			return control(rawConn{rc}, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 9) })
		}})
		l := listen(t, p, reuse.Config{}, "tcp4", anyPort)
		queued, open := dial(t, l.Addr()), dial(t, l.Addr())
		_, err := io.WriteString(queued, "x")
		require.NoError(t, err)
		drained := make(chan error, 1)
		go func() { drained <- p.Drain(soon(t)) }()
		for hidden := 0; hidden == 0; {
			require.NoError(t, control(l.(syscall.Conn), func(fd int) (err error) { // or Drain has ended
				hidden, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
				return err
			}))
		}
		begun := time.Now()
		_, err = l.Accept() // the queue is empty
		require.NoError(t, err)
		time.Sleep(5 * time.Millisecond)
		_, err = io.WriteString(open, "x")
		inTime := time.Since(begun) < 15*time.Millisecond
		if inTime {
			require.NoError(t, err)
			_, err = l.Accept()
			require.NoError(t, err)
		}
		answerAll(l, "p")
		require.NoError(t, <-drained)
		require.NoError(t, p.Drain(ended()), "which is over")
		if inTime {
			return
		}
	}
	t.Skip("this machine is too slow")
}

// Where a listener cannot be hidden Drain closes it, and says so. An errno of 0 is what
// gVisor has: the option is accepted without effect.
func TestDrainThatCannotHideIsAnError(t *testing.T) {
	testproc.NeedDeny(t)
	t.Parallel()
	for _, errno := range []syscall.Errno{0, unix.ENOPROTOOPT, unix.EPERM} {
		p := child(t, Config{}, nil)
		a := p.takeOver(t, "0")
		p.do(t, fmt.Sprint("deny ", int(errno), " ", unix.SYS_SETSOCKOPT, " 2 ", unix.SO_BINDTOIFINDEX), "drain")
		assert.Contains(t, p.Ask("drained"), "tcp4 127.0.0.1:0 cannot be hidden")
		_, err := net.Dial("tcp4", a.String())
		assert.ErrorIs(t, err, unix.ECONNREFUSED)
	}
}
