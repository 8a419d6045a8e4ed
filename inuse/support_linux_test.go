package inuse

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/testproc"
)

const (
	tcp, udp, mptcp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_MPTCP

	raddr  = semantics.Addr
	rport  = semantics.Port
	nobody = 65534

	patience = 10 * time.Second
	tick     = time.Millisecond
)

func TestMain(m *testing.M) {
	testproc.Main(m, map[string]testproc.Child{"hold": hold, "ask": ask})
}

// netns is testproc.Netns, for a test that expects Linux's rules. In the namespace this
// process is root, perhaps of a user namespace.
func netns(t *testing.T) bool {
	t.Helper()
	if !likeLinux() {
		t.Skip("this kernel is not Linux, and has other rules")
	}
	return testproc.Netns(t)
}

// needUsers skips a test that makes sockets of other users.
func needUsers(t testing.TB) {
	t.Helper()
	var inside, outside, count int64
	require.NoError(t, scan("/proc/self/uid_map", &inside, &outside, &count))
	if os.Getuid() != 0 || count <= nobody {
		t.Skip("this user cannot be other users")
	}
}

// A spec is a socket to be made, by nothing but system calls.
type spec struct {
	Proto   int // IPPROTO_TCP, IPPROTO_UDP, IPPROTO_MPTCP
	At      netip.AddrPort
	V6Only  bool
	Options semantics.Options
	Listen  bool
	Device  string // to bind to
	UID     int    // of the socket, or of the process that start starts; 0: this one's
	Count   int    // that start makes; 0: 1
	Spread  bool   // each on the next port
}

func listener(at string, options semantics.Options) spec {
	return spec{Proto: tcp, At: netip.MustParseAddrPort(at), Options: options, Listen: true}
}

// packets is a UDP socket.
func packets(at string, options semantics.Options) spec {
	return spec{Proto: udp, At: netip.MustParseAddrPort(at), Options: options}
}

func (s spec) ofNobody() spec        { s.UID = nobody; return s }
func (s spec) on(device string) spec { s.Device = device; return s }
func (s spec) v6only(only bool) spec { s.V6Only = only; return s }
func (s spec) with(proto int) spec   { s.Proto = proto; return s }
func (s spec) forty() spec           { s.Count = 40; return s }

func (s spec) network() string { return map[bool]string{true: "udp", false: "tcp"}[s.Proto == udp] }

// open makes one socket and returns where it is bound.
func (s spec) open() (fd int, at netip.AddrPort, err error) {
	if s.UID != 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, err := unix.SetfsuidRetUid(s.UID); err != nil {
			return -1, at, err
		}
		defer func() {
			_, e := unix.SetfsuidRetUid(os.Geteuid())
			err = errors.Join(err, e)
		}()
	}
	family, kind, ip := unix.AF_INET6, unix.SOCK_STREAM, s.At.Addr()
	if ip.Is4() {
		family = unix.AF_INET
	}
	if s.Proto == udp {
		kind = unix.SOCK_DGRAM
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, s.Proto); err != nil {
		return -1, at, err
	}
	flag := map[bool]int{true: 1}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, flag[s.Options.Has(semantics.Addr)]),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, flag[s.Options.Has(semantics.Port)]))
	if !ip.Is4() {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, flag[s.V6Only]))
	}
	if s.Device != "" {
		err = errors.Join(err, unix.BindToDevice(fd, s.Device))
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(s.At))
	}
	if err == nil && s.Listen {
		err = unix.Listen(fd, 8)
	}
	if err != nil {
		return -1, at, errors.Join(err, unix.Close(fd))
	}
	port := s.At.Port()
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = uint16(sa.Port)
	case *unix.SockaddrInet6:
		port = uint16(sa.Port)
	}
	return fd, netip.AddrPortFrom(ip, port), nil
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

// keep opens a socket until the test ends, or until it is closed.
func (s spec) keep(t testing.TB) (file *os.File, at netip.AddrPort) {
	t.Helper()
	fd, at, err := s.open()
	require.NoError(t, err)
	file = os.NewFile(uintptr(fd), "")
	t.Cleanup(func() { file.Close() })
	return file, at
}

// hold is a child that makes sockets as a user, and keeps them until it is told to end.
func hold(args []string, in *bufio.Scanner, out io.Writer) error {
	var s spec
	err := json.Unmarshal([]byte(args[0]), &s)
	if s.UID != 0 {
		err = errors.Join(err, syscall.Setresuid(s.UID, s.UID, s.UID))
	}
	for range max(s.Count, 1) {
		_, at, e := s.open()
		if err = errors.Join(err, e); err != nil {
			return err
		}
		if s.At = at; s.Spread {
			s.At = netip.AddrPortFrom(at.Addr(), at.Port()+1)
		}
	}
	fmt.Fprintln(out, s.At, os.Getpid())
	in.Scan()
	return nil
}

// start starts a holder in another process.
func (s spec) start(t testing.TB) (at netip.AddrPort, pid int) {
	t.Helper()
	b, err := json.Marshal(s)
	require.NoError(t, err)
	var text string
	_, err = fmt.Sscan(testproc.Start(t, "hold", string(b)).Receive(), &text, &pid)
	require.NoError(t, err)
	return netip.MustParseAddrPort(text), pid
}

// A question is what a child asks of this package, as a user and without something.
type question struct {
	UID     int         // 0: this one
	Without []string    // "netlink", "proc", "IPv6"
	Places  [][2]string // networks and addresses
}

// An answer has the report of Check, and of Explain if a bind is refused.
type answer struct {
	Unsupported      bool // Check's error wraps errors.ErrUnsupported
	Checked, Refused *Report
}

// ask is a child that answers a question.
func ask(args []string, in *bufio.Scanner, out io.Writer) error {
	var q question
	err := json.Unmarshal([]byte(args[0]), &q)
	deny := func(what string, errno syscall.Errno, call int, args ...testproc.Arg) {
		if slices.Contains(q.Without, what) {
			err = errors.Join(err, testproc.Deny(errno, call, args...))
		}
	}
	deny("IPv6", unix.EAFNOSUPPORT, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_INET6})
	deny("netlink", unix.EAFNOSUPPORT, unix.SYS_SOCKET, testproc.Arg{Index: 0, Value: unix.AF_NETLINK}) // as RestrictAddressFamilies= does
	deny("proc", unix.ENOENT, unix.SYS_OPENAT)
	if q.UID != 0 {
		err = errors.Join(err, syscall.Setresuid(q.UID, q.UID, q.UID))
	}
	ctx, c := context.Background(), reuse.Config{}
	for _, at := range q.Places {
		var a answer
		var e error
		a.Checked, e = Check(ctx, c, at[0], at[1])
		a.Unsupported = errors.Is(e, errors.ErrUnsupported)
		l, e := bindAs(c, at[0], at[1])
		if e == nil {
			err = errors.Join(err, l.Close())
		} else {
			a.Refused, e = Explain(ctx, c, e)
			err = errors.Join(err, e)
		}
		err = errors.Join(err, json.NewEncoder(out).Encode(a))
	}
	in.Scan()
	return err
}

// in asks in a child, which attr may put into namespaces.
func (q question) in(t testing.TB, attr *syscall.SysProcAttr) (answers []answer) {
	t.Helper()
	b, err := json.Marshal(q)
	require.NoError(t, err)
	p := testproc.StartAs(t, attr, "ask", string(b))
	for range q.Places {
		var a answer
		require.NoError(t, json.Unmarshal([]byte(p.Receive()), &a))
		answers = append(answers, a)
	}
	return answers
}

// refusedToNobody explains what is refused to another user.
func refusedToNobody(t testing.TB, network, address string) *Report {
	t.Helper()
	r := question{UID: nobody, Places: [][2]string{{network, address}}}.in(t, nil)[0].Refused
	require.NotNil(t, r, "it was not refused")
	return r
}

// refused explains a bind that is refused.
func refused(t testing.TB, c reuse.Config, network, address string) *Report {
	t.Helper()
	l, err := bindAs(c, network, address)
	if err == nil {
		l.Close()
	}
	return explained(t, c, err)
}

func explained(t testing.TB, c reuse.Config, err error) *Report {
	t.Helper()
	require.Error(t, err)
	r, err := Explain(t.Context(), c, err)
	require.NoError(t, err)
	return r
}

func checked(t testing.TB, c reuse.Config, network, address string) *Report {
	t.Helper()
	r, err := Check(t.Context(), c, network, address)
	require.NoError(t, err)
	return r
}

func holdersOf(t testing.TB, network, address string) []Holder {
	t.Helper()
	list, err := Holders(t.Context(), network, address)
	require.NoError(t, err)
	return list
}

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

// binds shows that what was advised works.
func binds(t testing.TB, c reuse.Config, network, address string) {
	t.Helper()
	l, err := bindAs(c, network, address)
	if assert.NoError(t, err, "%s %s with %v", network, address, c) {
		l.Close()
	}
}

// every returns each Config that makes sense for a listener on Linux.
func every() (list []reuse.Config) {
	settings := []reuse.Setting{reuse.Default, reuse.On, reuse.Off}
	for _, a := range settings {
		for _, p := range settings {
			// On is not for every address, and Off is nothing.
			for _, e := range []reuse.Setting{reuse.Default, reuse.Prefer} {
				if c := (reuse.Config{Addr: a, Port: p, Exclusive: e}); c.Check() == nil {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

var (
	works   = regexp.MustCompile(`^(reuse\.Config\{[^}]*\}) works(?:| if (.*?))\.(?: Then .*)?$`)
	onOther = regexp.MustCompile(`^(?:Network "(\w+)"|A specific address) works(?:, as in "(\S+)"\.)?`)
)

// conditions returns the Configs that an Advice names, and on what they depend: "" if on
// nothing.
func conditions(r *Report) map[reuse.Config]string {
	all := map[reuse.Config]string{}
	for _, a := range r.Advice {
		for _, c := range append(every(), reuse.Config{PortLB: reuse.On}, reuse.Config{Exclusive: reuse.On}) {
			if m := works.FindStringSubmatch(a); m != nil && m[1] == literal(c) {
				all[c] = m[2]
			}
		}
	}
	return all
}

// follow does what the report of a bind advises, and checks it: what is sure to work does,
// if no Config works then none does, and a Config that works is among those that are named.
// It returns the Configs that work, and how often the advice was another address or network.
func follow(t testing.TB, r *Report, c reuse.Config, network, address string, detail ...any) (bound []reuse.Config, elsewhere int) {
	t.Helper()
	tries := func(network, address string, c reuse.Config, must bool) (ok bool) {
		t.Helper()
		l, err := bindAs(c, network, address)
		if err == nil {
			require.NoError(t, l.Close())
		} else {
			require.ErrorIs(t, err, syscall.EADDRINUSE)
		}
		if must {
			assert.NoError(t, err, "%s %s with %v: %v %v", network, address, c, r, detail)
		}
		return err == nil
	}
	assert.NotContains(t, r.Reason, "is gone", "%v", detail)
	text := strings.Join(r.Advice, "\n")
	named := strings.Contains(text, " may work: ") || strings.Contains(text, "No Config is sure")
	for next, condition := range conditions(r) {
		assert.NotEqual(t, c, next, "it was refused: %v %v", r, detail)
		named = tries(network, address, next, condition == "") || named
	}
	for _, next := range every() {
		if tries(network, address, next, false) {
			bound = append(bound, next)
		}
	}
	assert.True(t, named || len(bound) == 0, "%v works and is not named: %v %v", bound, r, detail)
	if strings.Contains(text, "No Config works") {
		assert.Empty(t, bound, "%v %v", r, detail)
	}
	for _, a := range r.Advice {
		if m := onOther.FindStringSubmatch(a); m != nil {
			_, port, _ := net.SplitHostPort(address)
			if elsewhere++; m[1] == "" {
				tries(network, m[2], c, true)
			} else {
				tries(m[1], ":"+port, c, true)
			}
		}
	}
	return bound, elsewhere
}

// showsBound reports whether this kernel shows TCP sockets that are bound only.
func showsBound() bool {
	_, release, _ := semantics.Running()
	return !olderThan68(release)
}

// ownName is what this program's processes are called.
func ownName(t testing.TB) string {
	b, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	return strings.TrimSuffix(string(b), "\n")
}

// addAddress gives the loopback an IPv6 address.
func addAddress(t testing.TB, ip netip.Addr) {
	t.Helper()
	body := []byte{unix.AF_INET6, 64, unix.IFA_F_NODAD, 0, 0, 0, 0, 0} // struct ifaddrmsg
	binary.NativeEndian.PutUint32(body[4:], 1)                         // lo
	require.NoError(t, netlink(t, unix.RTM_NEWADDR, append(body, attribute(unix.IFA_LOCAL, ip.AsSlice())...)))
}

// addDevice makes a network device in this network namespace, a pair of veth.
func addDevice(t testing.TB, name string) {
	t.Helper()
	body := make([]byte, unix.SizeofIfInfomsg)
	body = append(body, attribute(unix.IFLA_IFNAME, append([]byte(name), 0))...)
	body = append(body, attribute(unix.IFLA_LINKINFO, attribute(1, []byte("veth\x00")))...) // IFLA_INFO_KIND
	if err := netlink(t, unix.RTM_NEWLINK, body); err != nil {
		t.Skip("no device can be made: ", err)
	}
}

// attribute is a struct rtattr.
func attribute(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	return append(b, make([]byte, -len(b)&3)...)
}

// netlink sends a message that creates something in this network namespace.
func netlink(t testing.TB, kind uint16, body []byte) error {
	t.Helper()
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	message = append(message, make([]byte, 8)...) // sequence, port
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer unix.Close(s)
	require.NoError(t, unix.Sendto(s, append(message, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	reply := make([]byte, 1<<12)
	n, _, err := unix.Recvfrom(s, reply, 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, unix.SizeofNlMsghdr+4)
	if errno := -int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
