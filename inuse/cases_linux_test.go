package inuse

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse"
	"example.com/reuse/internal/testproc"
)

// These are cases that went wrong for users, each with the advice followed. Those of an
// address in use are in advice_linux_test.go, of Unix sockets in unixsocket_linux_test.go.

func opError(op, network string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: addr, Err: err}
}

// A link-local address needs the zone of an interface.
func TestZoneMissing(t *testing.T) {
	if !netns(t) {
		return
	}
	addAddress(t, netip.MustParseAddr("fe80::1"))
	for _, address := range []string{"[fe80::1]:8080", "[fe80::1%nosuch]:8080"} {
		for _, network := range []string{"tcp6", "udp6"} {
			r := refused(t, reuse.Config{}, network, address)
			assert.Contains(t, r.Reason, "fe80::1 is a link-local address, which each interface has for itself: it needs the zone of an existing interface.")
			assert.Equal(t, strings.Contains(address, "nosuch"), strings.Contains(r.Reason, "No interface is called nosuch."))
			binds(t, reuse.Config{}, network, net.JoinHostPort(says(t, r, `^Use a zone, as in "(\S+)"\.`)[1], "8080"))
			c := checked(t, reuse.Config{}, network, address)
			assert.False(t, c.Free)
			assert.Equal(t, r.Reason, c.Reason)
		}
	}
	assert.True(t, checked(t, reuse.Config{}, "tcp6", "[fe80::1%lo]:8080").Free)
}

func TestNoSuchAddress(t *testing.T) {
	if !netns(t) {
		return
	}
	for _, tt := range [][2]string{{"tcp", "192.0.2.1"}, {"udp4", "192.0.2.1"}, {"tcp", "2001:db8::1"}} {
		address := net.JoinHostPort(tt[1], "80")
		r := refused(t, reuse.Config{}, tt[0], address)
		assert.Equal(t, "No interface of this machine, or of this network namespace, has the address "+tt[1]+".", r.Reason)
		assert.Contains(t, r.Advice[0], "wildcard")
		assert.Equal(t, r, checked(t, reuse.Config{}, tt[0], address))
	}
	_, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	r := explained(t, reuse.Config{}, err)
	assert.Contains(t, r.Reason, "has the address 192.0.2.1.")
	assert.Equal(t, "192.0.2.1:0", r.Address)
	assert.Equal(t, []string{"Dial from no address in particular, or from one that an interface has."}, r.Advice)

	// These can be bound, and no interface has them.
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0))
	for _, tt := range [][2]string{{"udp4", "255.255.255.255:80"}, {"tcp4", "224.1.2.3:80"}, {"tcp4", "192.0.2.1:80"}} {
		r := checked(t, reuse.Config{}, tt[0], tt[1])
		assert.True(t, r.Free, "%v", r)
		binds(t, reuse.Config{}, tt[0], tt[1])
	}
}

// An error without a *net.OpError has no address, and of others only the errno is known.
func TestErrnoAlone(t *testing.T) {
	t.Parallel()
	_, taken := net.Listen("tcp4", "192.0.2.1:80")
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	const noAddress, useCheck = "The error contains no *net.OpError, so the address is unknown.", "Use inuse.Check with the network and the address, or wrap the error of package net with %w."
	for _, tt := range []struct {
		err            error
		reason, advice string
	}{
		{os.NewSyscallError("bind", syscall.EADDRINUSE), "An address is in use. " + noAddress, useCheck},
		{os.NewSyscallError("bind", syscall.EACCES), "The system does not permit this bind or connection. " + noAddress, useCheck},
		{fmt.Errorf("start: %v", taken), "What failed is unknown. " + noAddress, useCheck}, //nolint:errorlint // that is the case
		{opError("listen", "tcp4", at, os.NewSyscallError("bind", syscall.EACCES)),
			"The system does not permit this process to bind 127.0.0.1:8080: a security module", "Look at what confines this process"},
		{opError("dial", "tcp4", at, os.NewSyscallError("connect", syscall.EPERM)), "The system does not permit this process to connect to 127.0.0.1:8080: a firewall", ""},
		{&net.OpError{Op: "dial", Net: "tcp4", Source: at, Addr: &net.TCPAddr{Port: 1}, Err: os.NewSyscallError("bind", syscall.EACCES)},
			"The system does not permit this process to bind 127.0.0.1:8080: a security module", "Look at what confines this process"},
		{opError("dial", "tcp4", at, &reuse.OptionError{Op: "set", Option: reuse.Port, Err: syscall.EACCES}), "set Port on linux: permission denied.", "A filter of system calls"},
		{opError("dial", "tcp6", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 8080}, os.NewSyscallError("connect", syscall.EINVAL)),
			"fe80::1 is a link-local address, which each interface has for itself", ""},
		{opError("dial", "tcp", nil, os.NewSyscallError("socket", syscall.ENFILE)), "The system has as many files open as it can", "Raise the system's limit"},
		{opError("dial", "tcp", nil, os.NewSyscallError("socket", syscall.EMFILE)), "This process has as many descriptors open as it may: ", "Close connections and files"},
	} {
		r := explained(t, reuse.Config{}, tt.err)
		assert.True(t, strings.HasPrefix(r.Reason, tt.reason), r.Reason)
		assert.True(t, strings.HasPrefix(strings.Join(r.Advice, " "), tt.advice), "%v", r)
		if strings.HasSuffix(r.Network, "4") {
			assert.Equal(t, at.String(), r.Address) // of a dial the remote address, but if bind failed
		}
	}
}

func TestNothingToExplain(t *testing.T) {
	t.Parallel()
	_, nonsense := net.Listen("tcp4", "nonsense")
	for _, err := range []error{
		nonsense,
		opError("listen", "tcp4", (*net.TCPAddr)(nil), syscall.EADDRINUSE),
		opError("listen", "\x1b[2J", &net.TCPAddr{Port: 80}, syscall.EADDRINUSE),
		opError("listen", "tcp4", &net.TCPAddr{}, nil),
		opError("dial", "unix", &net.UnixAddr{Net: "unix", Name: "/x"}, syscall.EACCES),
		opError("dial", "tcp4", &net.TCPAddr{}, syscall.EINVAL),
	} {
		_, e := Explain(t.Context(), reuse.Config{}, err)
		require.Error(t, e)
		assert.True(t, strings.HasPrefix(e.Error(), "inuse: "), "%v", e)
	}
	_, err := Explain(t.Context(), reuse.Config{}, nonsense)
	assert.ErrorIs(t, err, nonsense)
	_, err = Explain(t.Context(), reuse.Config{}, nil)
	assert.ErrorIs(t, err, os.ErrInvalid)
}

// A port in use that is dialed from, and a connection that exists already.
func TestDialFromPortInUse(t *testing.T) {
	if !netns(t) {
		return
	}
	dial := func(c reuse.Config, local, remote string, want error) (net.Conn, *Report) {
		t.Helper()
		conn, err := c.Dial(t.Context(), "tcp4", local, remote)
		require.ErrorIs(t, err, want)
		if err != nil {
			return nil, explained(t, c, err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, nil
	}
	none, port := reuse.Config{}, reuse.Config{Port: reuse.On}
	const otherPort = "dial from another local port, or from port 0."
	_, at := listener("127.0.0.1:0", 0).keep(t)
	_, at2 := listener("127.0.0.1:0", 0).keep(t)
	remote := at.String()
	c, _ := dial(port, "127.0.0.1:0", remote, nil)
	local := c.LocalAddr().String()
	exists := fmt.Sprintf("A connection from %s to %s exists already, in ESTABLISHED: it is held by this process, pid ", local, remote)

	_, r := dial(none, local, remote, syscall.EADDRINUSE)
	assert.Equal(t, local, r.Address)
	require.Len(t, r.Holders, 1)
	assert.Contains(t, r.Reason, exists)
	assert.Equal(t, []string{"Dial from another local port, or from port 0."}, r.Advice) // no Config makes the connect succeed

	dial(port, local, at2.String(), nil)
	_, r = dial(port, local, remote, reuse.ErrTupleInUse)
	assert.Equal(t, remote, r.Address)
	require.Len(t, r.Holders, 1)
	assert.Equal(t, remote, r.Holders[0].Remote.String())
	assert.Contains(t, r.Reason, exists)

	_, own := listener("127.0.0.1:0", rport).keep(t) // a dialer takes nothing over
	_, r = dial(none, own.String(), remote, syscall.EADDRINUSE)
	assert.Equal(t, own.String(), r.Address)
	assert.Equal(t, "This process has the address already: close that socket, or "+otherPort, r.Advice[len(r.Advice)-1])
	other, _ := listener("127.0.0.1:0", rport).start(t)
	_, r = dial(none, other.String(), remote, syscall.EADDRINUSE)
	assert.Equal(t, "Otherwise end the process, or "+otherPort, r.Advice[len(r.Advice)-1])

	_, r = dial(port, "127.0.0.1:34567", "127.0.0.1:34567", reuse.ErrSelfDial)
	assert.Contains(t, r.Reason, "127.0.0.1:34567, so the socket was connected to itself")

	// The own listener needs Port too, and so does another process's.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	_, r = dial(port, l.Addr().String(), remote, syscall.EADDRINUSE)
	says(t, r, `^Set reuse\.Config\{Port: reuse\.On\} on this process's other socket too, before the bind of each: then it works\.$`)
	require.NoError(t, l.Close())
	l, err = port.Listen(t.Context(), "tcp4", l.Addr().String())
	require.NoError(t, err)
	defer l.Close()
	dial(port, l.Addr().String(), remote, nil)
	held, pid := listener("127.0.0.1:0", 0).start(t)
	says(t, refused(t, port, "tcp4", held.String()), fmt.Sprintf(`^Restart pid %d with reuse\.Config\{Port: reuse\.On\} too: then it works\.$`, pid))
}

// When the kernel finds no port, the report has the range and how many are taken. A port
// outside the range, of another address, or of a connection to another one does not count.
// DeferPort is advised for connections from one address that bind first, and works.
func TestPortsExhausted(t *testing.T) {
	if !netns(t) {
		return
	}
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40003"), 0))
	const all = "The kernel found no free port by itself: of the 4 ephemeral ports, 40000 to 40003, 4 are taken "
	_, below := listener("127.0.0.1:39999", 0).keep(t)
	_, above := listener("127.0.0.1:40004", 0).keep(t)
	listener("127.0.0.2:40000", 0).keep(t) // bind may use its port, connect may not
	at, err := resolve(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	_, _, taken, err := ephemeral(t.Context(), at, netip.AddrPort{})
	require.NoError(t, err)
	assert.Zero(t, taken)

	// fill opens what it can, and explains the error.
	fill := func(c reuse.Config, open func() (io.Closer, error)) (list []io.Closer, r *Report) {
		t.Helper()
		for range 5 {
			conn, err := open()
			if err != nil {
				return list, explained(t, c, err)
			}
			list = append(list, conn)
			t.Cleanup(func() { conn.Close() })
		}
		return list, nil
	}
	for _, network := range []string{"tcp4", "udp4"} {
		open, r := fill(reuse.Config{}, func() (io.Closer, error) { return bindAs(reuse.Config{}, network, "127.0.0.1:0") })
		require.Len(t, open, 4)
		assert.Equal(t, all+"on 127.0.0.1.", r.Reason)
		assert.Contains(t, r.Advice[0], "ip_local_port_range")
		_, err := reuse.Config{}.Dial(t.Context(), network, "127.0.0.1:0", below.String())
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		r = explained(t, reuse.Config{}, err)
		assert.Equal(t, all+"on 127.0.0.1.", r.Reason)
		advised := strings.HasPrefix(r.Advice[0], "With reuse.Config{DeferPort: reuse.On} on all of these connections")
		assert.Equal(t, network == "tcp4", advised, "%v", r) // UDP has none
		for _, l := range open {
			require.NoError(t, l.Close())
		}
	}
	c := reuse.Config{DeferPort: reuse.On}
	for _, to := range []string{below.String(), above.String()} {
		open, r := fill(c, func() (io.Closer, error) { return c.Dial(t.Context(), "tcp4", "127.0.0.1:0", to) })
		require.Len(t, open, 3)
		assert.Equal(t, all+"for connections to "+to+".", r.Reason)
		assert.Contains(t, r.Advice[0], "Widen the range")
	}
}

// The errno is the same if the kernel finds no source address.
func TestNoSourceAddress(t *testing.T) {
	if !netns(t) {
		return
	}
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0))
	listener("127.0.0.1:80", 0).keep(t)
	c, err := net.Dial("tcp4", "127.0.0.1:80") // does not count
	require.NoError(t, err)
	defer c.Close()
	_, err = net.Dial("tcp", "[::1]:80")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	assert.Contains(t, explained(t, reuse.Config{}, err).Reason, " 0 are taken for connections to [::1]:80. If that is few, no interface has an address")
}

func TestNoIPv6(t *testing.T) {
	testproc.NeedDeny(t)
	if !netns(t) {
		return
	}
	_, at := listener("0.0.0.0:0", 0).keep(t) // a wildcard is IPv4 there
	answers := question{Without: []string{"IPv6"}, Places: [][2]string{{"tcp6", "[::1]:8080"}, {"tcp", fmt.Sprint(":", at.Port())}}}.in(t, nil)
	assert.Contains(t, answers[0].Refused.Reason, "no sockets of the family that tcp6 on [::1]:8080 needs")
	assert.Len(t, answers[1].Refused.Holders, 1)
}

func TestPrivilegedPort(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	a := question{UID: nobody, Places: [][2]string{{"tcp4", "127.0.0.1:80"}}}.in(t, nil)[0]
	assert.Empty(t, a.Refused.Holders)
	assert.Equal(t, fmt.Sprintf("Ports below 1024 are for processes with a privilege that this one, uid %d, lacks.", nobody), a.Refused.Reason)
	require.Len(t, a.Refused.Advice, 1)
	assert.Contains(t, a.Refused.Advice[0], "CAP_NET_BIND_SERVICE")
	assert.Equal(t, a.Refused, a.Checked)
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("90"), 0))
	assert.Contains(t, refusedToNobody(t, "udp4", "127.0.0.1:80").Reason, "Ports below 90 are")
}

// In a user namespace a capability does not count if the network namespace belongs to
// another one, and users outside have no numbers.
func TestUserNamespace(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	var most int
	if scan("/proc/sys/user/max_user_namespaces", &most) != nil || most == 0 {
		t.Skip("this system has no user namespaces")
	}
	in := func(address string) *Report {
		return question{Places: [][2]string{{"tcp4", address}}}.in(t, &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		})[0].Refused
	}
	r := in("127.0.0.1:80")
	assert.Equal(t, "Ports below 1024 are for processes with a privilege that this one, uid 0, lacks.", r.Reason)
	says(t, r, `lower net\.ipv4\.ip_unprivileged_port_start where this network namespace was made\. A capability of this user namespace does not count`)
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("80"), 0))
	listener("127.0.0.1:80", 0).keep(t) // now it works, so the child is refused by this
	assert.Contains(t, in("127.0.0.1:80").Reason, "127.0.0.1:80 is held by")

	listener("127.0.0.1:8080", rport).ofNobody().keep(t)
	r = in("127.0.0.1:8080")
	require.Len(t, r.Holders, 1)
	assert.Equal(t, -1, r.Holders[0].UID)
	assert.Contains(t, r.Reason, "(socket of a user outside this user namespace)")
	assert.Contains(t, r.Advice[0], "No Config works")
	assert.NotContains(t, r.Reason, "65534")
}

// The system has these options, and the calls are wrong for them.
func TestOptionOfCall(t *testing.T) {
	t.Parallel()
	if !likeLinux() {
		t.Skip("gVisor has other rules")
	}
	port, balanced := reuse.Config{Port: reuse.On}, reuse.Config{PortLB: reuse.On}
	lc, err := port.ListenConfig(net.ListenConfig{})
	require.NoError(t, err)
	_, inControl := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	_, dialed := balanced.Dial(t.Context(), "tcp4", "127.0.0.1:0", "127.0.0.1:9")
	// gVisor cannot share a port that it chose.
	unsupported := &reuse.OptionError{Op: "set", Option: reuse.Port, Err: errors.ErrUnsupported}
	chosen := opError("listen", "udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, unsupported)
	for err, advice := range map[error]string{
		inControl: "Use Config.ListenPacket, which finds a free port and shares it then, or another port than 0.",
		dialed:    "Use Port: reuse.On in place of PortLB to dial from a port that is shared.",
		chosen:    "Use another port than 0.",
	} {
		assert.Equal(t, []string{advice}, explained(t, reuse.Config{}, err).Advice)
	}
}

// Check and Explain report the option that Listen refuses, also on an address that is free.
func TestOptionsThatListenRefuses(t *testing.T) {
	if !netns(t) {
		return
	}
	exclusive, port := reuse.Config{Exclusive: reuse.On}, reuse.Config{Port: reuse.On}
	for _, tt := range []struct {
		config           reuse.Config
		network, address string
		reason, advice   string // "": Listen does not refuse it
	}{
		{exclusive, "tcp4", "0.0.0.0:8080", "set Exclusive on linux: unsupported", ""},
		{exclusive, "tcp", ":8080", "", ""},
		{exclusive, "tcp4", "localhost:8080", "", ""},
		{exclusive, "tcp4", "0.0.0.0:80", "", ""}, // a privileged port
		{port, "udp4", "0.0.0.0:8080", "", ""},
		{port, "unix", filepath.Join(t.TempDir(), "s"), "set Port on linux: unsupported: it has no effect", "Leave Port at reuse.Default for this call, or use reuse.Prefer"},
		{port, "unixgram", "@inuse", "set Port on linux: unsupported", ""},
		{reuse.Config{Port: reuse.Prefer}, "unix", "@inuse", "", ""},
		{reuse.Config{Port: 9}, "tcp4", "127.0.0.1:8080", "check Port: invalid argument: Setting(9).", "A Setting is"},
		{reuse.Config{Port: reuse.On, Exclusive: reuse.On}, "tcp4", "127.0.0.1:8080",
			"check Exclusive: contradictory options: Exclusive On with Port On.", "Ask for one of the two options"},
		{reuse.Config{DeferPort: reuse.On}, "tcp4", "127.0.0.1:8080",
			"set DeferPort on linux: unsupported: a listener", "Leave DeferPort at reuse.Default for this call"},
	} {
		c := checked(t, tt.config, tt.network, tt.address)
		if assert.Equal(t, tt.reason == "", c.Free, "%+v: %v", tt, c); c.Free {
			binds(t, tt.config, tt.network, tt.address)
			continue
		}
		r := refused(t, tt.config, tt.network, tt.address)
		assert.True(t, strings.HasPrefix(r.Reason, tt.reason), r.Reason)
		require.Len(t, r.Advice, 1)
		assert.Contains(t, r.Advice[0], tt.advice)
		assert.Equal(t, []any{r.Reason, r.Advice, r.Holders}, []any{c.Reason, c.Advice, c.Holders})
	}
}

// Check concludes nothing from a refusal.
func TestCheck(t *testing.T) {
	if !netns(t) {
		return
	}
	s := listener("127.0.0.1:8080", rport)
	file, at := s.keep(t)
	r := checked(t, reuse.Config{}, "tcp4", at.String())
	require.Len(t, r.Holders, 1)
	assert.False(t, r.Free)
	assert.Equal(t, "reuse.Config{Port: reuse.On} works if this process's own socket set SO_REUSEPORT.", r.Advice[0])
	require.NoError(t, file.Close())
	r = checked(t, reuse.Config{}, "tcp4", at.String())
	r.Reason, _, _ = strings.Cut(r.Reason, " Linux lists TCP sockets")
	assert.Equal(t, &Report{Network: "tcp4", Address: at.String(), Free: true, Reason: "Nothing that is visible overlaps " + at.String() + "."}, r)

	// A Config that is sure to be admitted alongside holders is free to bind.
	for range 2 {
		s.keep(t)
	}
	r = checked(t, reuse.Config{Port: reuse.On}, "tcp4", at.String())
	assert.True(t, r.Free, "%v", r)
	assert.Len(t, r.Holders, 2)
	assert.Contains(t, r.Reason, ", which admits reuse.Config{Port: reuse.On}.")
	binds(t, reuse.Config{Port: reuse.On}, "tcp4", at.String())

	// What was in the way is gone.
	r = explained(t, reuse.Config{}, opError("listen", "tcp4", &net.TCPAddr{Port: 81}, os.NewSyscallError("bind", syscall.EADDRINUSE)))
	assert.False(t, r.Free)
	assert.Contains(t, r.Reason, "is gone, or is not shown")
	assert.Equal(t, []string{"Try again."}, r.Advice)
}
