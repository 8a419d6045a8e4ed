package inuse

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// These are cases that went wrong for users, each with the advice followed.

// says finds an Advice that matches a pattern, and returns what its groups match.
func says(t testing.TB, r *Report, pattern string) []string {
	t.Helper()
	for _, a := range r.Advice {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(a); m != nil {
			return m
		}
	}
	require.Fail(t, "no such advice", "%s in\n%v", pattern, r)
	return nil
}

// saysNot fails if an Advice contains a text.
func saysNot(t testing.TB, r *Report, text string) {
	t.Helper()
	assert.NotContains(t, strings.Join(r.Advice, "\n"), text, "%v", r)
}

// binds shows that what was advised works.
func binds(t testing.TB, c reuse.Config, network, address string) {
	t.Helper()
	l, err := bindAs(c, network, address)
	if assert.NoError(t, err, "%s %s", network, address) {
		l.Close()
	}
}

// A hand-over is advised from the same address only.
func TestHandOverIsOfOneAddress(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, tt := range []struct {
		at            string
		v6only        bool
		network, host string
		passes        bool
	}{
		{"127.0.0.1", false, "tcp4", "127.0.0.1", true},
		{"::", false, "tcp", "", true},
		{"::1", false, "tcp", "::1", true},
		{"0.0.0.0", false, "tcp4", "", true},
		{"::", true, "tcp6", "", true},
		{"127.0.0.1", false, "tcp", "", false},
		{"::", true, "tcp", "", false},
		{"::", false, "tcp6", "", false},
		{"0.0.0.0", false, "tcp4", "127.0.0.1", false},
		{"::", false, "tcp4", "", false},
	} {
		s := spec{Proto: unix.IPPROTO_TCP, At: netip.AddrPortFrom(netip.MustParseAddr(tt.at), 0), V6Only: tt.v6only, Listen: true, Options: rport, UID: os.Getuid()}
		at, pid := s.start(t)
		r := refused(t, reuse.Config{}, tt.network, net.JoinHostPort(tt.host, strconv.Itoa(int(at.Port()))))
		text := fmt.Sprintf("If pid %d is the previous process of this server, a hand-over from it passes the socket on (package handover).", pid)
		assert.Equal(t, tt.passes, strings.Contains(strings.Join(r.Advice, " "), text), "%+v: %v", tt, r)
	}
}

// "tcp" with a wildcard address is dual-stack: the other network works.
func TestOtherNetwork(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, tt := range []struct {
		proto             int
		held, asked, want string
	}{
		{unix.IPPROTO_TCP, "::1", "0.0.0.0", "tcp4"},
		{unix.IPPROTO_TCP, "0.0.0.0", "::", "tcp6"},
		{unix.IPPROTO_TCP, "127.0.0.1", "", "tcp6"},
		{unix.IPPROTO_UDP, "::1", "0.0.0.0", "udp4"},
		{unix.IPPROTO_UDP, "0.0.0.0", "", "udp6"},
	} {
		s := spec{Proto: tt.proto, At: netip.AddrPortFrom(netip.MustParseAddr(tt.held), 0), Listen: tt.proto == unix.IPPROTO_TCP, UID: os.Getuid()}
		at, _ := s.start(t)
		address := net.JoinHostPort(tt.asked, strconv.Itoa(int(at.Port())))
		r := refused(t, reuse.Config{}, tt.want[:3], address)
		m := says(t, r, `^Network "(\w+)" works: "\w+" with a wildcard address is dual-stack`)
		assert.Equal(t, tt.want, m[1])
		binds(t, reuse.Config{}, m[1], ":"+strconv.Itoa(int(at.Port())))
		saysNot(t, r, "hand-over")
	}
}

// With Exclusive On the advice is of what Listen accepts.
func TestElsewhereExclusive(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "v0")
	exclusive := reuse.Config{Exclusive: reuse.On}
	for _, tt := range []struct {
		proto                int
		held, device         string
		network, asked, want string
	}{
		{unix.IPPROTO_TCP, "[::1]:8080", "", "tcp", ":8080", ""},
		{unix.IPPROTO_TCP, "[::1]:80", "", "tcp", ":80", `Network "tcp4" works`}, // a privileged port
		{unix.IPPROTO_TCP, "127.0.0.1:8080", "", "tcp", ":8080", ""},
		{unix.IPPROTO_TCP, "127.0.0.2:8080", "", "tcp", ":8080", "A specific address works"},
		{unix.IPPROTO_TCP, "127.0.0.1:8080", "v0", "tcp", "127.0.0.1:8080", ""},
		{unix.IPPROTO_UDP, "127.0.0.1:8080", "", "udp", ":8080", ""},
		{unix.IPPROTO_UDP, "127.0.0.2:8080", "", "udp", ":8080", ""},
	} {
		s := spec{Proto: tt.proto, At: netip.MustParseAddrPort(tt.held), Device: tt.device, Listen: tt.proto == unix.IPPROTO_TCP}
		fd, _, err := s.open()
		require.NoError(t, err)
		r := refused(t, exclusive, tt.network, tt.asked)
		if elsewhereWorks(t, r, exclusive, s.At.Port()); tt.want != "" {
			says(t, r, "^"+tt.want)
		}
		saysNot(t, r, "another device")
		require.NoError(t, unix.Close(fd))
	}
}

// addAddress gives an interface an IPv6 address with 64 bits of prefix.
func addAddress(t *testing.T, ip netip.Addr, index int) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	in6ifreq := struct { // of linux/ipv6.h
		addr   [16]byte
		prefix uint32
		index  int32
	}{ip.As16(), 64, int32(index)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&in6ifreq)))
	require.Zero(t, errno, "%v", errno)
}

// A link-local address needs the zone of an interface.
func TestZoneMissing(t *testing.T) {
	if !netns(t) {
		return
	}
	addAddress(t, netip.MustParseAddr("fe80::1"), 1)
	for _, address := range []string{"[fe80::1]:8080", "[fe80::1%nosuch]:8080"} {
		for _, network := range []string{"tcp6", "udp6"} {
			r := refused(t, reuse.Config{}, network, address)
			assert.Contains(t, r.Reason, "fe80::1 is a link-local address, which each interface has for itself: it needs the zone of an existing interface.")
			assert.Equal(t, strings.Contains(address, "nosuch"), strings.Contains(r.Reason, "No interface is called nosuch."))
			m := says(t, r, `^Use a zone, as in "(\S+)"\.`)
			require.Eventually(t, func() bool { // until the kernel has checked the address
				l, err := bindAs(reuse.Config{}, network, net.JoinHostPort(m[1], "8080"))
				if err == nil {
					l.Close()
				}
				return err == nil
			}, patience, tick)
			checked, err := Check(t.Context(), reuse.Config{}, network, address)
			require.NoError(t, err)
			assert.False(t, checked.Free)
			assert.Equal(t, r.Reason, checked.Reason)
		}
	}
	_, err := net.Dial("tcp6", "[fe80::1]:8080")
	require.ErrorIs(t, err, syscall.EINVAL)
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Contains(t, r.Reason, "fe80::1 is a link-local address")
	zoned, err := Check(t.Context(), reuse.Config{}, "tcp6", "[fe80::1%lo]:8080")
	require.NoError(t, err)
	assert.True(t, zoned.Free, "%v", zoned)
}

// A specific address works alongside systemd-resolved's, which is on lo too.
func TestSpecificAddress(t *testing.T) {
	if !netns(t) {
		return
	}
	resolved := netip.MustParseAddrPort("127.0.0.53:53")
	spec{Proto: unix.IPPROTO_UDP, At: resolved, Device: "lo"}.keep(t, os.Getuid())
	spec{Proto: unix.IPPROTO_TCP, At: resolved, Device: "lo", Listen: true}.keep(t, os.Getuid())
	for _, network := range []string{"udp4", "tcp4", "udp", "tcp"} {
		r := refused(t, reuse.Config{}, network, "0.0.0.0:53")
		m := says(t, r, `^A specific address works, as in "(\S+)"\.`)
		binds(t, reuse.Config{}, network, m[1])
		assert.Contains(t, r.Reason, "on device lo")
	}
	spec{Proto: unix.IPPROTO_UDP, At: netip.MustParseAddrPort("127.0.0.1:53"), Listen: false}.keep(t, os.Getuid())
	saysNot(t, refused(t, reuse.Config{}, "udp4", ":53"), "A specific address works") // lo has no other
}

// Of listeners on devices the one on the caller's refuses, which no error names. Each
// condition is named once, and another device works.
func TestDeviceOfCaller(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "v0")
	addDevice(t, "w0")
	any4 := netip.MustParseAddrPort("0.0.0.0:8080")
	listener := spec{Proto: unix.IPPROTO_TCP, At: any4, Listen: true, Device: "v0", Options: rport}
	listener.keep(t, os.Getuid())
	listener.Device = "w0"
	listener.keep(t, os.Getuid())
	on := func(device string) net.ListenConfig {
		return net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			return errors.Join(rc.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }), err)
		}}
	}
	lc := on("v0")
	_, err := lc.Listen(t.Context(), "tcp4", ":8080")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Contains(t, r.Reason, "is held by this process, pid "+strconv.Itoa(os.Getpid())+" ("+ownName(t)+"), listening on 0.0.0.0:8080 (socket of uid "+strconv.Itoa(os.Getuid())+", on device v0)")
	assert.Contains(t, r.Reason, "Sockets on a device refuse sockets on that device and on none (here on v0, w0). Look at the holder on the device of your own socket")
	m := says(t, r, `^reuse\.Config\{Port: reuse\.On\} works if (.*)\.`)
	assert.Equal(t, "this process's own socket set SO_REUSEPORT", m[1])
	m = says(t, r, `^A socket on another device works \(SO_BINDTODEVICE\), as in "(\w+)"\.`)
	lc = on(m[1])
	l, err := lc.Listen(t.Context(), "tcp4", ":8080")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	listener.Device = "v0" // the third, with the others' option
	listener.keep(t, os.Getuid())
	r = refused(t, reuse.Config{}, "tcp4", ":8080")
	require.Len(t, r.Holders, 3)
	assert.Contains(t, r.Reason, "on device v0), and 2 other sockets.")
}

// An error without a *net.OpError has no address.
func TestNoOpError(t *testing.T) {
	t.Parallel()
	_, taken := net.Listen("tcp4", "192.0.2.1:80")
	for _, tt := range []struct {
		err    error
		reason string
	}{
		{os.NewSyscallError("bind", syscall.EADDRINUSE), "An address is in use. "},
		{os.NewSyscallError("bind", syscall.EACCES), "The system does not permit this bind or connection. "},
		{fmt.Errorf("start: %v", taken), "What failed is unknown. "}, //nolint:errorlint // that is the case
	} {
		r, err := Explain(t.Context(), reuse.Config{}, tt.err)
		require.NoError(t, err)
		assert.Equal(t, tt.reason+"The error contains no *net.OpError, so the address is unknown.", r.Reason)
		says(t, r, `^Use inuse\.Check with the network and the address, or wrap the error of package net with %w\.$`)
	}
}

// Who dials from the port of an own listener needs Port on both.
func TestDialFromOwnListener(t *testing.T) {
	if !netns(t) {
		return
	}
	peer, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer peer.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	at := l.Addr().String()
	c := reuse.Config{Port: reuse.On}
	_, err = c.Dial(t.Context(), "tcp4", at, peer.Addr().String())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	r, err := Explain(t.Context(), c, err)
	require.NoError(t, err)
	says(t, r, `^Set reuse\.Config\{Port: reuse\.On\} on this process's other socket too, before the bind of each: then it works\.$`)
	require.NoError(t, l.Close())
	l, err = c.Listen(t.Context(), "tcp4", at)
	require.NoError(t, err)
	defer l.Close()
	conn, err := c.Dial(t.Context(), "tcp4", at, peer.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	held, pid := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true, UID: os.Getuid()}.start(t)
	r = refused(t, c, "tcp4", held.String())
	says(t, r, fmt.Sprintf(`^Restart pid %d with reuse\.Config\{Port: reuse\.On\} too: then it works\.$`, pid))
}

// An option that the system has, and that the call is wrong for.
func TestOptionOfCall(t *testing.T) {
	if !netns(t) {
		return
	}
	port := reuse.Config{Port: reuse.On}
	lc, err := port.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	_, err = lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	require.Error(t, err)
	r, err := Explain(t.Context(), port, err)
	require.NoError(t, err)
	says(t, r, `^Use Config\.ListenPacket, which finds a free port and shares it then, or another port than 0\.$`)
	saysNot(t, r, "Prefer")
	p, err := port.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer p.Close()
	second, err := lc.ListenPacket(t.Context(), "udp4", p.LocalAddr().String())
	require.NoError(t, err)
	require.NoError(t, second.Close())

	// gVisor cannot share a port that it chose.
	unsupported := &reuse.OptionError{Op: "set", Option: reuse.Port, Err: errors.ErrUnsupported}
	r, err = Explain(t.Context(), port, &net.OpError{Op: "listen", Net: "udp4", Addr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, Err: unsupported})
	require.NoError(t, err)
	assert.Equal(t, []string{"Use another port than 0."}, r.Advice)

	balanced := reuse.Config{PortLB: reuse.On}
	l, err := balanced.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = balanced.Dial(t.Context(), "tcp4", "127.0.0.1:0", l.Addr().String())
	require.Error(t, err)
	r, err = Explain(t.Context(), balanced, err)
	require.NoError(t, err)
	says(t, r, `^Use Port: reuse\.On in place of PortLB to dial`)
	saysNot(t, r, "Prefer")
	c, err := port.Dial(t.Context(), "tcp4", "127.0.0.1:0", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// full is a child that opens descriptors until there are none left, and explains that.
func full(_ []string, _ *bufio.Scanner, out io.Writer) error {
	limit := unix.Rlimit{Cur: 60, Max: 60}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if l, err := net.Listen("tcp4", "127.0.0.1:0"); err == nil { // the poller's descriptors
		l.Close()
	}
	for {
		if _, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			break
		}
	}
	_, err := net.Listen("tcp4", "127.0.0.1:0")
	r, err := Explain(context.Background(), reuse.Config{}, err)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

func TestTooManyFiles(t *testing.T) {
	t.Parallel()
	r := new(Report)
	require.NoError(t, json.Unmarshal([]byte(testproc.Start(t, "full").Receive()), r))
	assert.Equal(t, "This process has as many descriptors open as it may: 60 of 60 now.", r.Reason)
	says(t, r, `^Close connections and files`)
	says(t, r, `^Raise the hard limit`)
	for err, text := range map[error]string{unix.ENFILE: "The system has as many files open as it can", unix.EMFILE: "This process has as many descriptors open as it may: "} {
		r, e := Explain(t.Context(), reuse.Config{}, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", err)})
		require.NoError(t, e)
		assert.Contains(t, r.Reason, text)
	}
}

// inUserNamespace runs a child in a user namespace that maps one user.
func inUserNamespace(t *testing.T, newNet bool, args ...string) *Report {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "REUSE_TEST_CHILD=explaining", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if newNet {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	}
	out, err := cmd.Output()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOSPC) {
		t.Skip("this user may not make a user namespace: ", err)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		require.NoError(t, err, "%s", exit.Stderr)
	}
	require.NoError(t, err)
	r := new(Report)
	require.NoError(t, json.Unmarshal(out, r))
	return r
}

// In a user namespace a capability does not count where the network namespace belongs to
// one outside, and neither do users of outside have numbers.
func TestUserNamespace(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	r := inUserNamespace(t, false, "0", "tcp4", "127.0.0.1:80")
	assert.Equal(t, "Ports below 1024 are for processes with a privilege that this one, uid 0, lacks.", r.Reason)
	says(t, r, `lower net\.ipv4\.ip_unprivileged_port_start where this network namespace was made\. A capability of this user namespace does not count`)
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("80"), 0))
	l, err := net.Listen("tcp4", "127.0.0.1:80") // now it works, so the child is refused by this
	require.NoError(t, err)
	defer l.Close()
	r = inUserNamespace(t, false, "0", "tcp4", "127.0.0.1:80")
	assert.Contains(t, r.Reason, "127.0.0.1:80 is held by")

	spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:8080"), Listen: true, Options: rport}.keep(t, nobody)
	r = inUserNamespace(t, false, "0", "tcp4", "127.0.0.1:8080")
	require.Len(t, r.Holders, 1)
	assert.Equal(t, -1, r.Holders[0].UID)
	assert.Contains(t, r.Reason, "(socket of a user outside this user namespace)")
	assert.Contains(t, r.Advice[0], "No Config works")
	assert.NotContains(t, r.Reason, "65534")
}

// silent is a child without AF_NETLINK, as RestrictAddressFamilies= makes it, or without
// /proc, or both. It says what Check and Explain return.
func silent(args []string, _ *bufio.Scanner, out io.Writer) error {
	if args[0] != "no proc" {
		if err := testproc.Deny(unix.EAFNOSUPPORT, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_NETLINK}); err != nil {
			return err
		}
	}
	if args[0] != "no netlink" {
		if err := testproc.Deny(unix.ENOENT, unix.SYS_OPENAT); err != nil {
			return err
		}
	}
	ctx := context.Background()
	for i := 1; i < len(args); i += 2 {
		r, err := Check(ctx, reuse.Config{}, args[i], args[i+1])
		answer := struct {
			Unsupported bool
			Report      *Report
			Refused     *Report
		}{Unsupported: errors.Is(err, errors.ErrUnsupported), Report: r}
		if l, bindErr := bindAs(reuse.Config{}, args[i], args[i+1]); bindErr == nil {
			l.Close()
		} else if answer.Refused, err = Explain(ctx, reuse.Config{}, bindErr); err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// Without sock_diag the answer comes from /proc/net, and without both it is an error.
func TestNoSockDiag(t *testing.T) {
	testproc.NeedDeny(t)
	if !netns(t) {
		return
	}
	var args []string
	for _, tt := range []struct {
		proto        int
		network, at  string
		asked, other string
	}{
		{unix.IPPROTO_TCP, "tcp6", "[::1]:8080", "[::1]:8080", "[::1]:8082"},
		{unix.IPPROTO_TCP, "tcp4", "127.0.0.1:8081", ":8081", "127.0.0.2:8081"},
		{unix.IPPROTO_UDP, "udp6", "[::1]:8080", "[::]:8080", "[::1]:8082"},
		{unix.IPPROTO_UDP, "udp4", "127.0.0.1:8081", "127.0.0.1:8081", "127.0.0.2:8081"},
		{unix.IPPROTO_UDP, "udp", "127.0.0.3:8083", ":8083", "[::1]:8083"},
	} {
		spec{Proto: tt.proto, At: netip.MustParseAddrPort(tt.at), Listen: tt.proto == unix.IPPROTO_TCP}.keep(t, os.Getuid())
		args = append(args, tt.network, tt.asked, tt.network, tt.other)
	}
	for _, without := range []string{"no proc", "no netlink", "neither"} {
		p := testproc.Start(t, "silent", append([]string{without}, args...)...)
		for i := 0; i < len(args); i += 2 {
			var answer struct {
				Unsupported     bool
				Report, Refused *Report
			}
			require.NoError(t, json.Unmarshal([]byte(p.Receive()), &answer))
			what := without + " " + args[i] + " " + args[i+1]
			held := i%4 == 0
			require.Equal(t, held, answer.Refused != nil, what)
			if without == "neither" {
				assert.True(t, answer.Unsupported, what)
				if held {
					assert.Contains(t, answer.Refused.Reason, "Which one cannot be seen: unsupported operation")
					assert.Contains(t, answer.Refused.Reason, " Linux refuses ")
					says(t, answer.Refused, `^reuse\.Config\{Port: reuse\.On\} works if the process on \S+ set SO_REUSEPORT and belongs to your user\.$`)
					says(t, answer.Refused, `^The command "ss -tulnp" shows the processes`)
				}
				continue
			}
			require.NotNil(t, answer.Report, what)
			assert.Equal(t, !held, answer.Report.Free, what)
			if held {
				require.Len(t, answer.Report.Holders, 1, what)
				assert.Equal(t, map[bool]int{true: os.Getpid()}[without == "no netlink"], answer.Report.Holders[0].PID, what)
				assert.Contains(t, answer.Refused.Reason, " is held by ", what)
			}
		}
	}
}

// What /proc/net says is what sock_diag says.
func TestProcNetAgrees(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, tt := range []struct {
		proto int
		at    string
	}{
		{unix.IPPROTO_TCP, "127.0.0.1:80"}, {unix.IPPROTO_TCP, "[::1]:80"}, {unix.IPPROTO_TCP, "[::]:81"},
		{unix.IPPROTO_UDP, "127.0.0.1:80"}, {unix.IPPROTO_UDP, "[::1]:80"}, {unix.IPPROTO_UDP, "0.0.0.0:81"},
	} {
		s := spec{Proto: tt.proto, At: netip.MustParseAddrPort(tt.at), Listen: tt.proto == unix.IPPROTO_TCP}
		s.keep(t, os.Getuid())
		if s.Listen {
			c, err := net.Dial("tcp", strings.Replace(tt.at, "[::]", "127.0.0.1", 1))
			require.NoError(t, err)
			defer c.Close()
		}
		at, err := bindTarget(map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[tt.proto], netip.Addr{}, s.At.Port())
		require.NoError(t, err)
		want, told, err := at.sockets(t.Context())
		require.NoError(t, err)
		require.True(t, told)
		for i := range want { // what /proc/net has not
			want[i].Cookie, want[i].V6Only, want[i].Queue = 0, false, 0
		}
		got, err := at.procNet(t.Context(), []uint8{unix.AF_INET, unix.AF_INET6})
		require.NoError(t, err)
		assert.ElementsMatch(t, want, got, tt.at)
	}
}

// A Unix socket's name is stale, in use, too long, in no folder, or of another file.
func TestUnixSockets(t *testing.T) {
	// Not parallel: a child that another test forks has this socket until it calls exec.
	folder := t.TempDir()
	path := filepath.Join(folder, "s")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "file"), nil, 0o600))
	explained := func(network, name string) *Report {
		t.Helper()
		c, err := net.Dial(network, name)
		if err == nil {
			defer c.Close()
		}
		var l io.Closer
		if network == "unixgram" {
			l, err = net.ListenPacket(network, name)
		} else {
			l, err = net.Listen(network, name)
		}
		if err == nil {
			l.Close()
			require.Fail(t, "it was not refused", name)
		}
		r, err := Explain(t.Context(), reuse.Config{}, err)
		require.NoError(t, err)
		checked, err := Check(t.Context(), reuse.Config{}, network, name)
		require.NoError(t, err)
		assert.Equal(t, r, checked)
		return r
	}
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		r, err := Check(t.Context(), reuse.Config{}, network, path)
		require.NoError(t, err)
		assert.True(t, r.Free)
		for _, name := range []string{path, "@inuse" + strconv.Itoa(os.Getpid())} {
			var l io.Closer
			if network == "unixgram" {
				l, err = net.ListenPacket(network, name)
			} else {
				l, err = net.Listen(network, name)
			}
			require.NoError(t, err)
			r = explained(network, name)
			require.Len(t, r.Holders, 1)
			assert.Equal(t, Holder{Network: network, Path: name, State: map[bool]string{true: bound, false: listen}[network == "unixgram"], UID: -1, PID: os.Getpid(), Command: ownName(t)}, r.Holders[0])
			assert.Contains(t, r.Reason, name+" is held by this process, pid ")
			assert.Equal(t, []string{"This process has the name already: use that socket, or close it."}, r.Advice)
			list, err := Holders(t.Context(), network, name)
			require.NoError(t, err)
			assert.Equal(t, r.Holders, list)
			if u, ok := l.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
			require.NoError(t, l.Close())
		}
		r = explained(network, path)
		assert.Equal(t, path+" is the file of a socket that is closed: connect is refused.", r.Reason)
		says(t, r, "^Remove the file")
		require.NoError(t, os.Remove(path))

		r = explained(network, filepath.Join(folder, "absent", "s"))
		assert.Equal(t, "The folder "+filepath.Join(folder, "absent")+" does not exist.", r.Reason)
		says(t, r, "^Make it before Listen")
		r = explained(network, filepath.Join(folder, strings.Repeat("x", 108-len(folder))))
		assert.Equal(t, "The path has 109 bytes, and a Unix socket's can have 107 here.", r.Reason)
		says(t, r, "^Use a shorter path")
		r = explained(network, filepath.Join(folder, "file"))
		assert.Equal(t, filepath.Join(folder, "file")+" is a file and no socket.", r.Reason)
	}
}

// A listener whose file was removed does not have the path: a file that another one left
// there is stale.
func TestUnixUnlinked(t *testing.T) {
	// Not parallel: a child that another test forks has this socket until it calls exec.
	path := filepath.Join(t.TempDir(), "s")
	bind := func() *net.UnixListener {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		return l
	}
	unlinked := bind()
	defer unlinked.Close()
	require.NoError(t, os.Remove(path))
	r, err := Check(t.Context(), reuse.Config{}, "unix", path)
	require.NoError(t, err)
	assert.True(t, r.Free, "%v", r)
	assert.Empty(t, r.Holders)

	require.NoError(t, bind().Close())
	r = refused(t, reuse.Config{}, "unix", path)
	assert.Equal(t, path+" is the file of a socket that is closed: connect is refused.", r.Reason)
	assert.Empty(t, r.Holders)
	says(t, r, "^Remove the file")
	require.NoError(t, os.Remove(path))
	require.NoError(t, bind().Close())
}

// Where connect is not permitted, the listener is named and may be another's.
func TestUnixConnectDenied(t *testing.T) {
	// Not parallel: a child that another test forks has this socket until it calls exec.
	needUsers(t)
	folder := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(folder), 0o755))
	require.NoError(t, os.Chmod(folder, 0o777))
	path := filepath.Join(folder, "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Chmod(path, 0o700))
	r := explainAs(t, nobody, "unix", path)
	assert.Contains(t, r.Reason, "Whether a process still listens on "+path+" cannot be seen: ")
	assert.Contains(t, r.Reason, " It may be a process that is not visible, listening on "+path+".")
	assert.Equal(t, []string{"If none does, remove the file."}, r.Advice)
}

// A listener is not disturbed by the look: nothing comes to be accepted.
func TestUnixListenerIsLeftAlone(t *testing.T) {
	t.Parallel()
	if !likeLinux() {
		t.Skip("gVisor needs a connection to see that the socket is live")
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@alone" + strconv.Itoa(os.Getpid())} {
		l, err := net.Listen("unix", name)
		require.NoError(t, err)
		defer l.Close()
		r, err := Check(t.Context(), reuse.Config{}, "unix", name)
		require.NoError(t, err)
		assert.False(t, r.Free)
		c, err := net.Dial("unix", name)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		first, err := l.Accept()
		require.NoError(t, err)
		defer first.Close()
		n, err := first.Read(make([]byte, 1))
		require.NoError(t, err, name)
		assert.Equal(t, 1, n)
	}
}

// An abstract name of one type of socket is free for another.
func TestAbstractTypes(t *testing.T) {
	t.Parallel()
	name := "@types" + strconv.Itoa(os.Getpid())
	p, err := net.ListenPacket("unixgram", name)
	require.NoError(t, err)
	defer p.Close()
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Skip("this kernel has one name for all types: ", err) // not Linux
	}
	require.NoError(t, l.Close())
	r, err := Check(t.Context(), reuse.Config{}, "unix", name)
	require.NoError(t, err)
	assert.True(t, r.Free, "%v", r)
}

// Check sees what permissions refuse.
func TestCheckDenied(t *testing.T) {
	t.Parallel()
	needUsers(t)
	folder := t.TempDir()
	require.NoError(t, os.Chmod(folder, 0o755))
	for _, how := range []string{"", "check"} {
		r := explainAs(t, nobody, "unix", filepath.Join(folder, "s"), how)
		assert.False(t, r.Free)
		assert.Equal(t, "This process, uid 65534, may not make a file in "+folder+".", r.Reason)
	}
	// A privileged port is refused too.
	r := explainAs(t, nobody, "tcp4", "127.0.0.1:80", "check")
	assert.False(t, r.Free)
	assert.Contains(t, r.Reason, "Ports below ")
}
