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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

// explaining is a child that becomes a user, listens and says what Explain does.
func explaining(args []string, in *bufio.Scanner, out io.Writer) error {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if len(args) > 3 && args[3] == "no IPv6" {
		if err := testproc.Deny(unix.EAFNOSUPPORT, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_INET6}); err != nil {
			return err
		}
	}
	if len(args) > 3 && args[3] == "no sock_diag" {
		if err := testproc.Deny(unix.EACCES, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_NETLINK}); err != nil {
			return err
		}
	}
	if uid != os.Getuid() {
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			return err
		}
	}
	if len(args) > 3 && args[3] == "check" {
		r, err := Check(context.Background(), reuse.Config{}, args[1], args[2])
		return errors.Join(err, json.NewEncoder(out).Encode(r))
	}
	l, err := bindAs(reuse.Config{}, args[1], args[2])
	if len(args) > 3 && args[3] == "dial" {
		l, err = reuse.Config{}.Dial(context.Background(), args[1], args[2], "127.0.0.1:9")
	}
	if err == nil {
		l.Close()
		return errors.New("it was not refused")
	}
	r, err := Explain(context.Background(), reuse.Config{}, err)
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, string(b))
	for in.Scan() {
	}
	return nil
}

func explainAs(t *testing.T, uid int, network, address string, more ...string) *Report {
	t.Helper()
	p := testproc.Start(t, "explaining", append([]string{strconv.Itoa(uid), network, address}, more...)...)
	r := new(Report)
	require.NoError(t, json.Unmarshal([]byte(p.Receive()), r))
	return r
}

// refused binds what is refused, and explains it.
func refused(t *testing.T, c reuse.Config, network, address string) *Report {
	t.Helper()
	l, err := bindAs(c, network, address)
	if !assert.Error(t, err) {
		l.Close()
		t.FailNow()
	}
	r, err := Explain(t.Context(), c, err)
	require.NoError(t, err)
	return r
}

// A user who may not see the process is told so.
func TestNotVisible(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	at, pid := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("0.0.0.0:0"), Listen: true, Options: raddr | rport}.start(t)
	address := "127.0.0.1:" + strconv.Itoa(int(at.Port()))
	r := explainAs(t, nobody, "tcp4", address)
	require.Len(t, r.Holders, 1)
	assert.Equal(t, Holder{Network: "tcp4", Local: at, State: listen, UID: 0}, r.Holders[0], "pid %d", pid)
	assert.Contains(t, r.Reason, address+" is held by a process that is not visible, listening on "+at.String()+" (socket of uid 0).")
	assert.Contains(t, r.Reason, "both set SO_REUSEPORT under the same user.")
	assert.Contains(t, r.Reason, "Yours is uid "+strconv.Itoa(nobody)+".")
	assert.Contains(t, r.Advice[0], "No Config works")

	own, pid := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true, UID: nobody}.start(t)
	r = explainAs(t, nobody, "tcp4", own.String())
	require.Len(t, r.Holders, 1)
	assert.Contains(t, []int{0, pid}, r.Holders[0].PID) // a process that changed its user shows itself to root only
	assert.Equal(t, nobody, r.Holders[0].UID)
}

func TestNoIPv6(t *testing.T) {
	testproc.NeedDeny(t)
	if !netns(t) {
		return
	}
	r := explainAs(t, os.Getuid(), "tcp6", "[::1]:0", "no IPv6")
	assert.Contains(t, r.Reason, "no sockets of the family that tcp6 on [::1]:0 needs")
	l, err := net.Listen("tcp4", "0.0.0.0:0") // a wildcard is IPv4 there
	require.NoError(t, err)
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	r = explainAs(t, os.Getuid(), "tcp", ":"+port, "no IPv6")
	require.Len(t, r.Holders, 1)
}

func TestPrivilegedPort(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	r := explainAs(t, nobody, "tcp4", "127.0.0.1:80")
	assert.Empty(t, r.Holders)
	assert.Equal(t, "Ports below 1024 are for processes with a privilege that this one, uid "+strconv.Itoa(nobody)+", lacks.", r.Reason)
	require.Len(t, r.Advice, 1)
	assert.Contains(t, r.Advice[0], "CAP_NET_BIND_SERVICE")
	r = explainAs(t, nobody, "tcp4", "127.0.0.1:80", "dial")
	assert.Equal(t, "127.0.0.1:80", r.Address) // and not where it dials to
	assert.Contains(t, r.Reason, "Ports below 1024 are")
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("90"), 0))
	assert.Contains(t, explainAs(t, nobody, "udp4", "127.0.0.1:80").Reason, "Ports below 90 are")
}

func TestNoSuchAddress(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, network := range []string{"tcp", "udp4"} {
		r := refused(t, reuse.Config{}, network, "192.0.2.1:80")
		assert.Equal(t, "No interface of this machine, or of this network namespace, has the address 192.0.2.1.", r.Reason)
		assert.Contains(t, r.Advice[0], "wildcard")
	}
	assert.Contains(t, refused(t, reuse.Config{}, "tcp", "[2001:db8::1]:80").Reason, "has the address 2001:db8::1.")
	checked, err := Check(t.Context(), reuse.Config{}, "tcp", "192.0.2.1:80")
	require.NoError(t, err)
	assert.False(t, checked.Free)
	assert.Contains(t, checked.Reason, "has the address 192.0.2.1.")
	_, err = net.DialTCP("tcp4", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Contains(t, r.Reason, "has the address 192.0.2.1.")
	assert.Equal(t, "192.0.2.1:0", r.Address)
	assert.Equal(t, []string{"Dial from no address in particular, or from one that an interface has."}, r.Advice)
}

// A port in use that is dialed from, and a connection that exists already.
func TestDial(t *testing.T) {
	if !netns(t) {
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	remote := l.Addr().String()
	port := reuse.Config{Port: reuse.On}
	c, err := port.Dial(t.Context(), "tcp4", "127.0.0.1:0", remote)
	require.NoError(t, err)
	defer c.Close()
	local := c.LocalAddr().String()

	_, err = reuse.Config{}.Dial(t.Context(), "tcp4", local, remote)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Equal(t, local, r.Address)
	require.Len(t, r.Holders, 1)
	assert.Equal(t, "ESTABLISHED", r.Holders[0].State)
	assert.Contains(t, r.Reason, "A connection from "+local+" to "+remote+" exists already, in ESTABLISHED: it is held by this process, pid ")
	assert.Equal(t, []string{"Dial from another local port, or from port 0."}, r.Advice) // no Config makes the connect succeed

	l2, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l2.Close()
	c2, err := port.Dial(t.Context(), "tcp4", local, l2.Addr().String())
	require.NoError(t, err)
	defer c2.Close()
	_, err = port.Dial(t.Context(), "tcp4", local, remote)
	require.ErrorIs(t, err, reuse.ErrTupleInUse)
	r, err = Explain(t.Context(), port, err)
	require.NoError(t, err)
	assert.Equal(t, remote, r.Address)
	require.Len(t, r.Holders, 1)
	assert.Equal(t, c.RemoteAddr().String(), r.Holders[0].Remote.String())
	assert.Contains(t, r.Reason, "A connection from "+local+" to "+remote+" exists already, in ESTABLISHED: it is held by this process")

	taken, err := port.Listen(t.Context(), "tcp4", "127.0.0.1:0") // a dialer takes nothing over
	require.NoError(t, err)
	defer taken.Close()
	_, err = reuse.Config{}.Dial(t.Context(), "tcp4", taken.Addr().String(), remote)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	r, err = Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Equal(t, taken.Addr().String(), r.Address)
	assert.Equal(t, "This process has the address already: close that socket, or dial from another local port, or from port 0.", r.Advice[len(r.Advice)-1])
	at, _ := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true, Options: rport, UID: os.Getuid()}.start(t)
	_, err = reuse.Config{}.Dial(t.Context(), "tcp4", at.String(), remote)
	r, err = Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Equal(t, "Otherwise end the process, or dial from another local port, or from port 0.", r.Advice[len(r.Advice)-1])

	_, err = port.Dial(t.Context(), "tcp4", "127.0.0.1:34567", "127.0.0.1:34567")
	require.ErrorIs(t, err, reuse.ErrSelfDial)
	r, err = Explain(t.Context(), port, err)
	require.NoError(t, err)
	assert.Contains(t, r.Reason, "127.0.0.1:34567, so the socket was connected to itself")
}

// When the kernel finds no port, the report has the range and how many are taken.
func TestExhausted(t *testing.T) {
	if !netns(t) {
		return
	}
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40003"), 0))
	outside := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:50000"), Listen: true}
	_, remote, err := outside.open()
	require.NoError(t, err)
	for _, network := range []string{"tcp4", "udp4"} {
		var open []io.Closer
		for range 4 {
			l, err := bindAs(reuse.Config{}, network, "127.0.0.1:0")
			require.NoError(t, err)
			open = append(open, l)
		}
		r := refused(t, reuse.Config{}, network, "127.0.0.1:0")
		assert.Equal(t, "The kernel found no free port by itself: of the 4 ephemeral ports, 40000 to 40003, 4 are taken on 127.0.0.1.", r.Reason)
		assert.Contains(t, r.Advice[0], "ip_local_port_range")
		_, err := reuse.Config{}.Dial(t.Context(), network, "127.0.0.1:0", remote.String())
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		r, err = Explain(t.Context(), reuse.Config{}, err)
		require.NoError(t, err)
		assert.Contains(t, r.Reason, "4 are taken on 127.0.0.1.")
		assert.Equal(t, network == "tcp4", strings.Contains(strings.Join(r.Advice, " "), "DeferPort"), "%v", r) // UDP has none
		for _, l := range open {
			require.NoError(t, l.Close())
		}
	}

	// Connections from one address that bind first. DeferPort is advised, and works.
	fill := func(c reuse.Config, to netip.AddrPort) (list []io.Closer, err error) {
		for range 5 {
			var conn net.Conn
			if conn, err = c.Dial(t.Context(), "tcp4", "127.0.0.1:0", to.String()); err != nil {
				break
			}
			list = append(list, conn)
		}
		return list, err
	}
	list, err := fill(reuse.Config{}, remote)
	require.Len(t, list, 4)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Contains(t, r.Reason, "of the 4 ephemeral ports, 40000 to 40003, 4 are taken on 127.0.0.1.")
	assert.Contains(t, r.Advice[0], "With reuse.Config{DeferPort: reuse.On} on all of these connections")
	for _, c := range list { // reset, so that nothing is left of them
		require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		require.NoError(t, c.Close())
	}
	other := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.2:50000"), Listen: true}
	_, second, err := other.open()
	require.NoError(t, err)
	deferred := reuse.Config{DeferPort: reuse.On}
	for _, to := range []netip.AddrPort{remote, second} {
		list, err := fill(deferred, to)
		require.Len(t, list, 4, "%v: %v", to, err)
		for _, c := range list {
			defer c.Close()
		}
		require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
		r, err := Explain(t.Context(), deferred, err)
		require.NoError(t, err)
		assert.Contains(t, r.Reason, "of the 4 ephemeral ports, 40000 to 40003, 4 are taken for connections to "+to.String()+".")
		assert.Contains(t, r.Advice[0], "ip_local_port_range")
	}
}

// A port counts once, and only if one of its sockets overlaps the address.
func TestEphemeral(t *testing.T) {
	if !netns(t) {
		return
	}
	first, err := sysctl("net/ipv4/ip_local_port_range", 2)
	require.NoError(t, err)
	require.Less(t, first[0], first[1])
	port := uint16(first[0])
	ip := netip.MustParseAddr
	for _, at := range []netip.AddrPort{
		netip.AddrPortFrom(ip("127.0.0.1"), port), netip.AddrPortFrom(ip("127.0.0.1"), port), // two on one port
		netip.AddrPortFrom(ip("127.0.0.2"), port+1), netip.AddrPortFrom(ip("127.0.0.1"), port-1),
		netip.AddrPortFrom(ip("::1"), port+2), netip.AddrPortFrom(ip("0.0.0.0"), port+3),
	} {
		s := spec{Proto: unix.IPPROTO_TCP, At: at, Listen: true, Options: rport}
		fd, _, err := s.open()
		require.NoError(t, err)
		defer unix.Close(fd)
	}
	every := func(netip.AddrPort) bool { return true }
	low, high, taken, err := ephemeral(t.Context(), target{proto: semantics.TCP, local: netip.AddrPortFrom(ip("127.0.0.1"), 0)}, every)
	require.NoError(t, err)
	assert.Equal(t, []int{first[0], first[1], 2}, []int{low, high, taken})
}

// The kernel has the same errno for want of an address.
func TestNoSource(t *testing.T) {
	if !netns(t) {
		return
	}
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0))
	l, err := net.Listen("tcp4", "127.0.0.1:80")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String()) // does not count
	require.NoError(t, err)
	defer c.Close()
	_, err = net.Dial("tcp", "[::1]:80")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	r, err := Explain(t.Context(), reuse.Config{}, err)
	require.NoError(t, err)
	assert.Contains(t, r.Reason, " 0 are taken for connections to [::1]:80. If that is few, no interface has an address")
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config           reuse.Config
		network, address string
		reason, advice   string
	}{
		{reuse.Config{Port: reuse.On, Exclusive: reuse.On}, "tcp4", "127.0.0.1:0",
			"check Exclusive: contradictory options: Exclusive On with Port On.", "Ask for one of the two options"},
		{reuse.Config{Port: 9}, "tcp4", "127.0.0.1:0", "check Port: invalid argument: Setting(9).", "A Setting is"},
		{reuse.Config{Port: reuse.On}, "unix", "@inuse", "set Port on linux: unsupported: it means nothing", "Leave Port at reuse.Default for a Unix socket."},
		{reuse.Config{DeferPort: reuse.On}, "tcp4", "127.0.0.1:0", "set DeferPort on linux: unsupported: a listener", "Leave DeferPort at reuse.Default for this call"},
	} {
		r := refused(t, tt.config, tt.network, tt.address)
		assert.Contains(t, r.Reason, tt.reason)
		require.Len(t, r.Advice, 1)
		assert.Contains(t, r.Advice[0], tt.advice)
		assert.Empty(t, r.Holders)
	}
}

// Check concludes nothing from a refusal.
func TestCheck(t *testing.T) {
	if !netns(t) {
		return
	}
	s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Options: rport, Listen: true}
	fd, at, err := s.open()
	require.NoError(t, err)
	r, err := Check(t.Context(), reuse.Config{}, "tcp4", at.String())
	require.NoError(t, err)
	require.Len(t, r.Holders, 1)
	assert.False(t, r.Free)
	assert.Equal(t, "reuse.Config{Port: reuse.On} works if this process's own socket set SO_REUSEPORT.", r.Advice[0])
	require.NoError(t, unix.Close(fd))
	r, err = Check(t.Context(), reuse.Config{}, "tcp4", at.String())
	require.NoError(t, err)
	r.Reason, _, _ = strings.Cut(r.Reason, " Linux lists TCP sockets")
	assert.Equal(t, &Report{Network: "tcp4", Address: at.String(), Free: true, Reason: "Nothing that is visible overlaps " + at.String() + "."}, r)

	// A Config that is sure to be admitted alongside holders is free to bind.
	s.At = at
	for range 2 {
		s.keep(t, os.Getuid())
	}
	r, err = Check(t.Context(), reuse.Config{Port: reuse.On}, "tcp4", at.String())
	require.NoError(t, err)
	assert.True(t, r.Free, "%v", r)
	assert.Len(t, r.Holders, 2)
	assert.Contains(t, r.Reason, ", which admits reuse.Config{Port: reuse.On}.")
	binds(t, reuse.Config{Port: reuse.On}, "tcp4", at.String())

	// What was in the way has gone.
	gone := &net.OpError{Op: "listen", Net: "tcp4", Addr: &net.TCPAddr{Port: 81}, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	r, err = Explain(t.Context(), reuse.Config{}, gone)
	require.NoError(t, err)
	assert.False(t, r.Free)
	assert.Contains(t, r.Reason, "is gone, or is not shown")
	assert.Equal(t, []string{"Try again."}, r.Advice)
}

// Check reports the option that Listen refuses, on an address that is free.
func TestCheckOptions(t *testing.T) {
	if !netns(t) {
		return
	}
	exclusive, port := reuse.Config{Exclusive: reuse.On}, reuse.Config{Port: reuse.On}
	for _, tt := range []struct {
		config           reuse.Config
		network, address string
		refused          reuse.Option // 0: none
	}{
		{exclusive, "tcp4", "0.0.0.0:8080", reuse.Exclusive},
		{exclusive, "tcp6", "[::]:8080", reuse.Exclusive},
		{exclusive, "udp4", "127.0.0.1:8080", reuse.Exclusive},
		{exclusive, "tcp", ":8080", 0},
		{exclusive, "tcp4", "localhost:8080", 0},
		{exclusive, "tcp4", "0.0.0.0:80", 0}, // a privileged port
		{port, "tcp4", "0.0.0.0:8080", 0},
		{port, "udp4", "0.0.0.0:8080", 0},
		{port, "unix", filepath.Join(t.TempDir(), "s"), reuse.Port},
		{port, "unixgram", "@inuse", reuse.Port},
		{port, "unixpacket", "@inuse", reuse.Port},
		{reuse.Config{Port: reuse.Prefer}, "unix", "@inuse", 0},
		{reuse.Config{Port: 9}, "tcp4", "127.0.0.1:8080", reuse.Port},
	} {
		r, err := Check(t.Context(), tt.config, tt.network, tt.address)
		require.NoError(t, err, "%+v", tt)
		l, err := bindAs(tt.config, tt.network, tt.address)
		var option *reuse.OptionError
		if !errors.As(err, &option) {
			require.NoError(t, err, "%+v", tt)
			require.NoError(t, l.Close())
			assert.Zero(t, tt.refused, "%+v", tt)
			assert.True(t, r.Free, "%+v: %v", tt, r)
			continue
		}
		assert.Equal(t, tt.refused, option.Option, "%+v", tt)
		explained, e := Explain(t.Context(), tt.config, err)
		require.NoError(t, e)
		assert.False(t, r.Free, "%+v: %v", tt, r)
		assert.Equal(t, explained.Reason, r.Reason)
		assert.Equal(t, explained.Advice, r.Advice)
	}
}

func TestNothingToExplain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, err := Explain(ctx, reuse.Config{}, nil)
	assert.ErrorIs(t, err, os.ErrInvalid)
	_, err = net.Listen("tcp4", "nonsense")
	require.Error(t, err)
	_, e := Explain(ctx, reuse.Config{}, err)
	assert.ErrorIs(t, e, err)
	for _, op := range []*net.OpError{
		{Op: "listen", Net: "tcp4", Err: syscall.EADDRINUSE},
		{Op: "listen", Net: "tcp4", Addr: (*net.TCPAddr)(nil), Err: syscall.EADDRINUSE},
		{Op: "listen", Net: "\x1b[2J", Addr: &net.TCPAddr{Port: 80}, Err: syscall.EADDRINUSE},
		{Op: "listen", Net: "tcp4", Addr: &net.TCPAddr{}},
		{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Net: "unix", Name: "/x"}, Err: syscall.EACCES},
		{Op: "dial", Net: "tcp4", Addr: &net.TCPAddr{}, Err: syscall.ECONNREFUSED},
		{Op: "dial", Net: "tcp4", Addr: &net.TCPAddr{}, Err: syscall.EINVAL},
	} {
		_, err := Explain(ctx, reuse.Config{}, op)
		require.Error(t, err)
		assert.True(t, strings.HasPrefix(err.Error(), "inuse: "), "%v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err = Explain(over, reuse.Config{}, &net.OpError{Op: "listen", Net: "tcp4", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, Err: syscall.EADDRINUSE})
	assert.ErrorIs(t, err, context.Canceled)
}
