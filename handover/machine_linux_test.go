package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// A machine may lack much that has nothing to do with Unix sockets.
func TestMachineLacks(t *testing.T) {
	t.Parallel()
	sysctl := func(value string, names ...string) func(t *testing.T) {
		return func(t *testing.T) {
			for _, name := range names {
				err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
				if errors.Is(err, os.ErrNotExist) {
					t.Skip("this kernel has no ", name)
				}
				require.NoError(t, err)
			}
		}
	}
	noIPv6 := sysctl("1", "ipv6/conf/all/disable_ipv6", "ipv6/conf/lo/disable_ipv6")
	for name, tt := range map[string]struct {
		flags   uintptr
		prepare func(t *testing.T)
		dial    string             // host, if it is another
		restore func(t *testing.T) // what keeps clients away
		folder  error              // with Dir
	}{
		"IPv6": {prepare: noIPv6},
		"127.0.0.1 and ::1": {prepare: func(t *testing.T) {
			noIPv6(t)
			loopback(t, func(s int, ifr *unix.Ifreq) error {
				return errors.Join(ifr.SetInet4Addr([]byte{10, 9, 9, 9}), unix.IoctlIfreq(s, unix.SIOCSIFADDR, ifr))
			})
		}, dial: "10.9.9.9"},
		"loopback": {
			prepare: func(t *testing.T) {
				notOnGVisor(t, "loopback is always up")
				loopbackUp(t, false)
			},
			restore: func(t *testing.T) { loopbackUp(t, true) },
		},
		"a firewall that lets connections in": {
			prepare: func(t *testing.T) {
				nft(t, "add table inet x; add chain inet x i { type filter hook input priority 0; policy drop; }")
			},
			restore: func(t *testing.T) { nft(t, "flush ruleset") },
		},
		"ports without NAT": {
			prepare: func(t *testing.T) {
				nft(t, "add table ip x; add chain ip x o { type nat hook output priority -100; }; add rule ip x o tcp dport != 1 redirect to :1")
			},
			restore: func(t *testing.T) { nft(t, "flush ruleset") },
		},
		"/proc": {flags: unix.CLONE_NEWNS, prepare: func(t *testing.T) { mount(t, "/proc", "") }},
		"a root that can be written": {flags: unix.CLONE_NEWNS, folder: unix.EROFS, prepare: func(t *testing.T) {
			require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
			err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
			if errors.Is(err, unix.ENOSYS) {
				t.Skip("no mount_setattr, which needs Linux 5.12")
			}
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !testproc.Netns(t, tt.flags) {
				return
			}
			dir := folder(t)
			tt.prepare(t)
			for _, c := range []Config{{Name: rand.Text()}, {Name: "web", Dir: dir}} {
				old, err := c.Start(soon(t))
				if c.Dir != "" && tt.folder != nil {
					require.ErrorIs(t, err, tt.folder)
					continue
				}
				require.NoError(t, err)
				l := listen(t, old, reuse.Config{}, "tcp", ":0")
				ready(t, old)
				next, l2 := serve(t, c, "new", "tcp", ":0")
				ready(t, next)
				replaced(t, old)
				assert.Equal(t, l.Addr(), l2.Addr())
				if tt.restore != nil {
					tt.restore(t)
				}
				host := "127.0.0.1"
				if tt.dial != "" {
					host = tt.dial
				}
				answers(t, "new", at("tcp4", net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))))
				require.NoError(t, next.Close())
				if tt.restore != nil {
					tt.prepare(t)
				}
			}
		})
	}
}

func loopback(t testing.TB, f func(s int, ifr *unix.Ifreq) error) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	require.NoError(t, err)
	require.NoError(t, f(s, ifr))
}

func loopbackUp(t testing.TB, up bool) {
	loopback(t, func(s int, ifr *unix.Ifreq) error {
		if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
			return err
		}
		flags := ifr.Uint16() &^ unix.IFF_UP
		if up {
			flags |= unix.IFF_UP
		}
		ifr.SetUint16(flags)
		return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
	})
}

func nft(t testing.TB, rules string) {
	t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("no nft to make firewall rules with")
	}
	cmd := exec.Command(path, "-f", "-")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(rules, "; add", "\nadd"))
	out, err := cmd.CombinedOutput()
	if err != nil && (strings.Contains(string(out), "not supported") || strings.Contains(string(out), "No such file")) {
		t.Skipf("this kernel has no such rules: %s", out)
	}
	require.NoError(t, err, string(out))
}

// mount puts a new file system at a path.
func mount(t testing.TB, path, options string) {
	t.Helper()
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("tmpfs", path, "tmpfs", 0, options))
}

func notOnGVisor(t *testing.T, why string) {
	t.Helper()
	if testproc.OnGVisor() {
		t.Skip("gVisor: " + why)
	}
}

// A full disk is an error, and Start works when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	notOnGVisor(t, "a file system's limits cannot be changed")
	if !testproc.Netns(t, unix.CLONE_NEWNS) {
		return
	}
	for inodes := 1; ; inodes++ {
		dir := folder(t)
		mount(t, dir, fmt.Sprintf("mode=0700,nr_inodes=%d", inodes))
		c := Config{Name: "web", Dir: dir}
		p, err := c.Start(soon(t))
		if err == nil {
			assert.Greater(t, inodes, 1)
			require.NoError(t, p.Close())
			break
		}
		require.ErrorIs(t, err, unix.ENOSPC)
		require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "nr_inodes=9"))
		require.NoError(t, begin(t, c).Close())
	}
}

// What the kernel refuses by seccomp is not needed, or named in the error.
func TestRefusedBySeccomp(t *testing.T) {
	testproc.NeedDeny(t)
	option := func(call, option int) string { return fmt.Sprint(call, " ", 2, " ", option) }
	for name, tt := range map[string]struct{ call, err string }{
		"SO_COOKIE":                    {call: option(unix.SYS_GETSOCKOPT, unix.SO_COOKIE)},
		"SO_NETNS_COOKIE":              {call: option(unix.SYS_GETSOCKOPT, unix.SO_NETNS_COOKIE)},
		"SO_BINDTOIFINDEX":             {call: option(unix.SYS_SETSOCKOPT, unix.SO_BINDTOIFINDEX)},
		"SO_ATTACH_REUSEPORT_EBPF":     {call: option(unix.SYS_SETSOCKOPT, unix.SO_ATTACH_REUSEPORT_EBPF)},
		"SO_ATTACH_REUSEPORT_CBPF":     {call: option(unix.SYS_SETSOCKOPT, unix.SO_ATTACH_REUSEPORT_CBPF)},
		"SO_DETACH_REUSEPORT_BPF":      {call: option(unix.SYS_SETSOCKOPT, unix.SO_DETACH_REUSEPORT_BPF)},
		"membarrier":                   {call: fmt.Sprint(unix.SYS_MEMBARRIER, " 0 8")},
		"AF_NETLINK":                   {call: fmt.Sprint(unix.SYS_SOCKET, " 0 ", unix.AF_NETLINK)},
		"AF_UNIX":                      {call: fmt.Sprint(unix.SYS_SOCKET, " 0 ", unix.AF_UNIX), err: "AF_UNIX"},
		"SO_PEERCRED (not at Dir)":     {call: option(unix.SYS_GETSOCKOPT, unix.SO_PEERCRED), err: "getsockopt"},
		"listen, which names the peer": {call: fmt.Sprint(unix.SYS_LISTEN, " 1 ", unix.SOMAXCONN)},
	} {
		for _, errno := range []syscall.Errno{unix.EPERM, unix.EAFNOSUPPORT} {
			t.Run(name+" "+unix.ErrnoName(errno), func(t *testing.T) {
				t.Parallel()
				c := Config{Name: rand.Text()}
				old, next := child(t, c, nil), child(t, c, nil)
				deny := fmt.Sprint("deny ", int(errno), " ", tt.call)
				require.Equal(t, "ok", next.Ask(deny))
				if name == "AF_UNIX" && errno == unix.EPERM {
					assert.Contains(t, next.Ask("start"), "operation not permitted")
					return
				}
				if name == "AF_UNIX" {
					assert.Contains(t, next.Ask("start"), tt.err)
					return
				}
				require.Equal(t, "0", old.Ask("start"))
				address := old.Ask("listen", "tcp4", anyPort)
				require.Equal(t, "ok", old.Ask("ready"))
				if tt.err != "" {
					assert.Contains(t, next.Ask("start"), tt.err)
					answers(t, old.Ask("pid"), at("tcp4", address))
					return
				}
				require.Equal(t, "ok", old.Ask(deny))
				require.Equal(t, old.Ask("pid"), next.Ask("start"))
				require.Equal(t, address, next.Ask("listen", "tcp4", anyPort))
				require.Equal(t, "ok", next.Ask("ready"))
				require.Equal(t, "ok", old.Ask("replaced"))
				answers(t, next.Ask("pid"), at("tcp4", address))
			})
		}
	}
}

// A process without a free descriptor hands over, and one that has too few to take over
// changes nothing.
func TestNoFreeDescriptor(t *testing.T) {
	notOnGVisor(t, "recvmsg does not say that a descriptor was dropped")
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		old.Ask("start")
		address := old.Ask("listen", "tcp4", anyPort)
		require.Equal(t, "ok", old.Ask("ready"))
		failed := 0
		for free := 0; ; free++ {
			require.Less(t, free, 30)
			next := child(t, c, nil)
			require.Equal(t, "ok", next.Ask("exhaust", strconv.Itoa(free)))
			answer := next.Ask("start")
			if answer == old.Ask("pid") {
				answer = next.Ask("listen", "tcp4", anyPort)
				if answer == address {
					next.Kill()
					break
				}
			}
			failed++
			require.Contains(t, answer, "too many open files")
			answers(t, old.Ask("pid"), at("tcp4", address))
			next.Kill()
		}
		assert.Positive(t, failed)
		require.Equal(t, "ok", old.Ask("exhaust 0"))
		next, _ := serve(t, c, "new", "tcp4", anyPort)
		ready(t, next)
		require.Equal(t, "ok", old.Ask("replaced"))
		answers(t, "new", at("tcp4", address))
	})
}

// Another user can hold the abstract name, but not find out or take anything.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can have processes of another user")
	}
	c := Config{Name: rand.Text()}
	other := child(t, c, nil)
	require.Equal(t, "ok", other.Ask("setuid 1"))
	p := begin(t, c)
	ready(t, p)
	require.Equal(t, "ok", other.Ask("knock", c.meetingPlace()))
	require.NoError(t, p.Close())
	// A process that another test starts has what is open here until its exec.
	require.Eventually(t, func() bool { return other.Ask("hold-name", c.meetingPlace()) == "ok" }, 10*time.Second, time.Millisecond)
	_, err := c.Start(soon(t))
	require.ErrorIs(t, err, os.ErrPermission)
	assert.ErrorContains(t, err, "is held by uid 1 (pid ")
	if !testproc.OnGVisor() { // which tells the id of a thread
		assert.ErrorContains(t, err, "(pid "+other.Ask("pid")+"), not by uid 0; set Dir")
	}
	c.Dir = folder(t)
	begin(t, c)
}

// In a user namespace a user may have another number, and all foreign users have one.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can have processes of another user")
	}
	mapped := func(uid int) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: 0, Size: 1}}}
	}
	c := Config{Name: "web", Dir: folder(t)}
	for _, attrs := range [][2]*syscall.SysProcAttr{{nil, mapped(1000)}, {mapped(1000), nil}} {
		old, next := child(t, c, attrs[0]), child(t, c, attrs[1])
		require.Equal(t, "0", old.Ask("start"))
		address := old.Ask("listen", "tcp4", anyPort)
		require.Equal(t, "ok", old.Ask("ready"))
		require.Equal(t, old.Ask("pid"), next.Ask("start"))
		require.Equal(t, address, next.Ask("listen", "tcp4", anyPort))
		require.Equal(t, "ok", next.Ask("ready"))
		require.Equal(t, "ok", old.Ask("replaced"))
		next.Kill()
	}
	c = Config{Name: rand.Text()}
	foreign := child(t, c, nil)
	require.Equal(t, "ok", foreign.Ask("setuid 1"))
	name := "@reuse/handover/1/65534/" + c.Name
	require.Equal(t, "ok", foreign.Ask("hold-name", name))
	inside := child(t, c, mapped(65534))
	assert.Contains(t, inside.Ask("start"), "is held by uid 65534 (pid "+foreign.Ask("pid")+"), as which every user outside this user namespace appears; set Dir")
	foreign.Kill()
	require.Equal(t, "0", inside.Ask("start"))
	foreign = child(t, c, nil)
	require.Equal(t, "ok", foreign.Ask("setuid 1"))
	require.Equal(t, "ok", foreign.Ask("knock", name))
}

// A path is found from another network namespace, where its sockets are of no use.
func TestAnotherNetworkNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace alone")
	}
	eachPlace(t, func(t *testing.T, c Config) {
		_, l := current(t, c)
		other := child(t, c, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
		answer := other.Ask("start")
		if c.Dir == "" {
			assert.Equal(t, "0", answer)
		} else {
			assert.Contains(t, answer, fmt.Sprintf("pid %d (uid 0) at %s is in another network namespace", os.Getpid(), c.meetingPlace()))
		}
		answers(t, "old", l.Addr())
	})
}

func TestLandlock(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		current(t, c)
		next := child(t, c, nil)
		if answer := next.Ask("landlock"); answer != "ok" {
			t.Skip(answer)
		}
		answer := next.Ask("start")
		if c.Dir == "" {
			assert.Contains(t, answer, "may not connect to "+c.meetingPlace()+"; set Dir")
		} else {
			assert.Equal(t, strconv.Itoa(os.Getpid()), answer)
		}
	})
}

// A queue that is full is not a place that is free.
func TestFullRendezvous(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		r := claim(t, c)
		rc, err := r.listener.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }))
		require.NoError(t, err)
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
		_, err = c.Start(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, c.meetingPlace())
		r.close(false)
		begin(t, c)
	})
}

// Descriptors that are sent to the current process do not stay in it.
func TestSentDescriptorsAreDropped(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		old := child(t, c, nil)
		old.Ask("start")
		require.Equal(t, "ok", old.Ask("ready"))
		begin(t, c).Close() // opens what the runtime keeps
		files := strings.TrimPrefix(old.Ask("files 0"), "error: ")
		h := connect(t, c)
		fds := make([]int, 250)
		null, err := os.Open("/dev/null")
		require.NoError(t, err)
		defer null.Close()
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		long := frame(t, message{Type: strings.Repeat("x", 1000)})
		for i := range 40 { // the kernel allows that many only as long as they are read
			for ctx := soon(t); ; {
				_, _, err := h.conn.WriteMsgUnix(long[i:i+1], unix.UnixRights(fds...), nil)
				if !errors.Is(err, unix.ETOOMANYREFS) {
					require.NoError(t, err)
					break
				}
				require.NoError(t, pause(ctx.Done(), time.Millisecond))
			}
		}
		begin(t, c).Close()
		n, err := strconv.Atoi(files)
		require.NoError(t, err)
		assert.Equal(t, "ok", old.Ask("files", strconv.Itoa(n+9)), "there are a few connections")
	})
}

// A Drain loses nothing that is queued, also in a process that is stopped during it.
func TestDrainOfStoppedProcess(t *testing.T) {
	notOnGVisor(t, "a listener cannot be hidden")
	eachPlace(t, func(t *testing.T, c Config) {
		p := child(t, c, nil)
		p.Ask("start")
		address := p.Ask("hold", "tcp4", anyPort)
		require.Equal(t, "ok", p.Ask("ready"))
		pid, err := strconv.Atoi(p.Ask("pid"))
		require.NoError(t, err)
		var queued []net.Conn
		for ctx := soon(t); ; {
			conn, err := net.Dial("tcp4", address)
			if errors.Is(err, unix.ECONNREFUSED) {
				break // it is hidden
			}
			require.NoError(t, errors.Join(err, ctx.Err()))
			if queued = append(queued, conn); len(queued) == 3 {
				require.Equal(t, "ok", p.Ask("drain"))
			}
		}
		stop(t, pid)
		time.Sleep(60 * time.Millisecond)
		require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
		require.Equal(t, "ok", p.Ask("serve"))
		for _, conn := range queued {
			answered(t, strconv.Itoa(pid), conn)
		}
		assert.Equal(t, "ok", p.Ask("drained"))
	})
}

// Where a listener cannot be hidden Drain closes it, and says so. An errno of 0 is what
// gVisor has: the option is accepted without effect.
func TestDrainIsUnsupported(t *testing.T) {
	testproc.NeedDeny(t)
	t.Parallel()
	for _, errno := range []syscall.Errno{0, unix.ENOPROTOOPT, unix.EPERM} {
		p := child(t, Config{}, nil)
		p.Ask("start")
		address := p.Ask("listen", "tcp4", anyPort)
		require.Equal(t, "ok", p.Ask(fmt.Sprint("deny ", int(errno), " ", unix.SYS_SETSOCKOPT, " 2 ", unix.SO_BINDTOIFINDEX)))
		p.Ask("drain")
		assert.Contains(t, p.Ask("drained"), "tcp4 127.0.0.1:0 cannot be hidden")
		_, err := net.Dial("tcp4", address)
		assert.ErrorIs(t, err, unix.ECONNREFUSED)
	}
}

// Exclusive goes together with a hand-over.
func TestExclusive(t *testing.T) {
	eachPlace(t, func(t *testing.T, c Config) {
		exclusive := reuse.Config{Exclusive: reuse.On}
		old := begin(t, c)
		l := listen(t, old, exclusive, "tcp4", anyPort)
		ready(t, old)
		next := begin(t, c)
		l2 := listen(t, next, exclusive, "tcp4", anyPort)
		ready(t, next)
		replaced(t, old)
		assert.Equal(t, l.Addr(), l2.Addr())
		_, err := reuse.Config{Port: reuse.On}.Listen(soon(t), "tcp4", l2.Addr().String())
		assert.ErrorIs(t, err, unix.EADDRINUSE)

		// A socket that others may share is not exclusive.
		shared := Config{Name: c.Name + "2", Dir: c.Dir}
		old = begin(t, shared)
		listen(t, old, reuse.Config{Port: reuse.On}, "tcp4", anyPort)
		ready(t, old)
		_, err = begin(t, shared).Listen(soon(t), exclusive, "tcp4", anyPort)
		var option *reuse.OptionError
		require.ErrorAs(t, err, &option)
		assert.Equal(t, reuse.Exclusive, option.Option)
	})
}
