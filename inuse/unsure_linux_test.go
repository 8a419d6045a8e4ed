package inuse

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse"
	"example.com/reuse/internal/semantics"
)

// as opens a socket as another user's, in this process. The test is to have called
// needUsers.
func (s spec) as(uid int) (fd int, at netip.AddrPort, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(uid); err != nil {
		return -1, at, err
	}
	fd, at, err = s.open()
	if _, e := unix.SetfsuidRetUid(os.Geteuid()); e != nil {
		panic(e)
	}
	return fd, at, err
}

// keep opens a socket for the rest of the test.
func (s spec) keep(t *testing.T, uid int) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, at, err := s.as(uid)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd, at
}

// addDevice makes a network device in this network namespace, a pair of veth, by a
// message RTM_NEWLINK.
func addDevice(t *testing.T, name string) {
	t.Helper()
	attribute := func(kind uint16, data []byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	body := make([]byte, unix.SizeofIfInfomsg)
	body = append(body, attribute(unix.IFLA_IFNAME, append([]byte(name), 0))...)
	body = append(body, attribute(unix.IFLA_LINKINFO, attribute(1, []byte("veth\x00")))...) // IFLA_INFO_KIND
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, unix.RTM_NEWLINK)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	message = append(message, make([]byte, 8)...) // sequence, port
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer unix.Close(s)
	require.NoError(t, unix.Sendto(s, append(message, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	answer := make([]byte, 1<<12)
	n, _, err := unix.Recvfrom(s, answer, 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, unix.SizeofNlMsghdr+4)
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		t.Skip("no device can be made: ", unix.Errno(errno))
	}
}

// Two listeners of different devices do not share, and are told apart.
func TestDevices(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "a0")
	addDevice(t, "b0")
	any4 := netip.MustParseAddrPort("0.0.0.0:67")
	for _, proto := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		network := map[int]string{unix.IPPROTO_TCP: "tcp4", unix.IPPROTO_UDP: "udp4"}[proto]
		for _, device := range []string{"a0", "b0"} {
			spec{Proto: proto, At: any4, Listen: proto == unix.IPPROTO_TCP, Device: device}.keep(t, os.Getuid())
		}
		r := refused(t, reuse.Config{}, network, ":67")
		require.Len(t, r.Holders, 2)
		assert.ElementsMatch(t, []string{"a0", "b0"}, []string{r.Holders[0].Device, r.Holders[1].Device})
		assert.Contains(t, r.String(), "  0.0.0.0:67 on a0  ")
		assert.Contains(t, r.Reason, ", on device ")
		assert.NotContains(t, r.Reason, "is gone")
		_, sure := advised(t, r)
		assert.False(t, sure, "%v", r)
		_, _, ok := follow(t, reuse.Config{}, network, ":67")
		assert.False(t, ok)
	}
}

// A bind that compares itself with one of the sockets only comes to stand beside one
// that does not share.
func TestDeviceOverlooked(t *testing.T) {
	if !netns(t) {
		return
	}
	addDevice(t, "a0")
	addDevice(t, "b0")
	any4 := netip.MustParseAddrPort("0.0.0.0:80")
	listener := spec{Proto: unix.IPPROTO_TCP, At: any4, Listen: true, Device: "a0"}
	listener.keep(t, os.Getuid())
	listener.Device, listener.Options = "b0", rport
	listener.keep(t, os.Getuid())
	listener.Device = ""
	listener.keep(t, os.Getuid())
	r := refused(t, reuse.Config{}, "tcp4", "127.0.0.1:80")
	require.Len(t, r.Holders, 3)
	_, sure := advised(t, r)
	assert.False(t, sure, "%v", r)
}

// An IPv6 connection of a dual-stack socket is beside 0.0.0.0 as an IPv4 one would be,
// and not beside any other address. Nobody tells that it is of a dual-stack socket.
func TestDualStackConnection(t *testing.T) {
	if !netns(t) {
		return
	}
	netip6 := netip.MustParseAddr("::1")
	for _, tt := range []struct {
		name   string
		dual   bool
		udp    bool
		closed bool
	}{
		{"accepted", true, false, false}, {"left in TIME_WAIT", true, false, true}, {"UDP", true, true, false},
		{"accepted, IPv6 only", false, false, false}, {"left in TIME_WAIT, IPv6 only", false, false, true}, {"UDP, IPv6 only", false, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("[::]:0"), V6Only: !tt.dual, Listen: true}
			network := "tcp4"
			if tt.udp {
				s.Proto, s.Listen, network = unix.IPPROTO_UDP, false, "udp4"
			}
			fd, at := s.keep(t, os.Getuid())
			local := netip.AddrPortFrom(netip6, at.Port())
			if tt.udp {
				require.NoError(t, unix.Connect(fd, &unix.SockaddrInet6{Port: 9, Addr: netip6.As16()}))
			} else {
				c, err := net.Dial("tcp6", local.String())
				require.NoError(t, err)
				defer c.Close()
				accepted, _, err := unix.Accept(fd)
				require.NoError(t, err)
				require.NoError(t, unix.Shutdown(fd, unix.SHUT_RDWR)) // it listens no more
				if tt.closed {
					require.NoError(t, unix.Close(accepted))
					_, err = c.Read(make([]byte, 1))
					require.Error(t, err)
					require.NoError(t, c.Close())
				} else {
					defer unix.Close(accepted)
				}
				require.NoError(t, unix.Close(fd))
			}
			port := ":" + strconv.Itoa(int(at.Port()))
			list, err := Holders(t.Context(), network, port)
			require.NoError(t, err)
			require.Len(t, list, 1)
			assert.Equal(t, local, list[0].Local)
			off := reuse.Config{Addr: reuse.Off}
			r, err := Check(t.Context(), off, network, port)
			require.NoError(t, err)
			says(t, r, `^reuse\.Config{Addr: reuse\.Off} works if .* made an IPv6-only socket\.$`)
			_, _, ok := follow(t, off, network, port)
			assert.Equal(t, !tt.dual, ok)
			if tt.dual {
				r = refused(t, off, network, port)
				assert.NotContains(t, r.Reason, "is gone")
				assert.NotContains(t, strings.Join(r.Advice, " "), "IPv6-only") // so it was not
			}
			list, err = Holders(t.Context(), network, "127.0.0.1"+port)
			require.NoError(t, err)
			assert.Empty(t, list)
			l, err := bindAs(off, network, "127.0.0.1"+port)
			require.NoError(t, err)
			require.NoError(t, l.Close())
		})
	}
}

// It is the holder that refuses every Config that is named, and not the first.
func TestCulprit(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	own := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:8200"), Listen: true, Options: rport}
	own.keep(t, os.Getuid())
	_, pid := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.2:8200"), Listen: true, UID: nobody}.start(t)
	for _, c := range []reuse.Config{{}, {Port: reuse.On}} {
		r := refused(t, c, "tcp4", ":8200")
		assert.Equal(t, []string{"No Config works beside pid " + strconv.Itoa(pid) + ".", "End the process, or use another port."}, r.Advice)
		assert.Contains(t, r.Reason, ":8200 is held by pid "+strconv.Itoa(pid)+" ")
	}
	refusedAll(t, "tcp4", ":8200")
}

// Linux admits what the rules of two sockets forbid, and that no Config works is not
// said.
func TestDetour(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("0.0.0.0:80"), Listen: true}.keep(t, nobody)
	spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("[::]:80"), V6Only: true, Listen: true, Options: rport}.keep(t, os.Getuid())
	r := refused(t, reuse.Config{}, "tcp", ":80")
	assert.Equal(t, "Whether reuse.Config{Port: reuse.On} works is not known: Linux may admit SO_REUSEPORT beside one socket of your user without asking the others.", r.Advice[0])
	l, err := bindAs(reuse.Config{Port: reuse.On}, "tcp", ":80")
	require.NoError(t, err)
	defer l.Close()
	r = refused(t, reuse.Config{}, "tcp4", "127.0.0.1:80") // beside sockets that do not share
	_, sure := advised(t, r)
	assert.False(t, sure, "%v", r)
}

// A socket that is gone may have left what admits a bind, and that no Config works is not
// said.
func TestTrace(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("0.0.0.0:80"), Listen: true}.keep(t, nobody)
	fd, _, err := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("[::]:80"), V6Only: true, Options: rport}.open()
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	r := refused(t, reuse.Config{}, "tcp", ":80")
	says(t, r, "^No Config is sure to work beside this process's own socket\\.$")
	binds(t, reuse.Config{Port: reuse.On}, "tcp", ":80")
}

// Whose the socket is, is not said of the process.
func TestSocketOfAnother(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	_, at := spec{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("127.0.0.1:0"), Listen: true}.keep(t, nobody)
	list, err := Holders(t.Context(), "tcp4", at.String())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, fmt.Sprintf("this process, pid %d (%s), listening on %v (socket of uid %d)", os.Getpid(), ownName(t), at, nobody), list[0].String())
	assert.Equal(t, "a process that has ended or is not visible, listening on "+at.String(), Holder{Local: at, State: listen, UID: -1}.String()) // root sees all that there are
}

// UDP sockets on one port show nothing of each other: one that is gone may have let
// them in, and so may an option that was cleared.
func TestTogetherOnUDP(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	all, one := netip.MustParseAddrPort("0.0.0.0:53"), netip.MustParseAddrPort("127.0.0.1:53")
	spec{Proto: unix.IPPROTO_UDP, At: all, Options: raddr | rport}.keep(t, nobody)
	spec{Proto: unix.IPPROTO_UDP, At: all, Options: raddr | rport}.keep(t, os.Getuid())
	spec{Proto: unix.IPPROTO_UDP, At: one, Options: rport}.keep(t, os.Getuid())
	for _, c := range []reuse.Config{{}, {Addr: reuse.On}} {
		r := refused(t, c, "udp4", "127.0.0.1:53")
		assert.NotContains(t, r.Reason, "is gone")
		_, sure := advised(t, r)
		assert.False(t, sure, "%v", r)
	}

	share := spec{Proto: unix.IPPROTO_UDP, At: netip.MustParseAddrPort("127.0.0.1:54"), Options: rport}
	first, _ := share.keep(t, os.Getuid())
	second, _ := share.keep(t, os.Getuid())
	for _, fd := range []int{first, second} {
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
	}
	r := refused(t, reuse.Config{}, "udp4", "127.0.0.1:54")
	_, sure := advised(t, r)
	assert.False(t, sure, "%v", r)
	refusedAll(t, "udp4", "127.0.0.1:54")
}

// visit connects to a listener, and maybe has it accept, and maybe closes the one side
// or both. What is open then is appended.
func visit(t *testing.T, random *rand.Rand, s spec, fd int, open []int, story []string) ([]int, []string) {
	to := s.At
	if ip := to.Addr(); ip.IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if ip.Is4() || !s.V6Only && random.IntN(2) == 0 {
			loopback = netip.MustParseAddr("127.0.0.1")
		}
		to = netip.AddrPortFrom(loopback, to.Port())
	}
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	client, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Connect(client, address))
	story = append(story, fmt.Sprint("visited from ", to.Addr()))
	require.NoError(t, unix.SetNonblock(fd, true))
	server := -1
	if random.IntN(2) == 0 {
		if server, _, err = unix.Accept(fd); err != nil { // another listener has it
			require.ErrorIs(t, err, unix.EAGAIN)
			server = -1
		}
		story = append(story, fmt.Sprint("accepted: ", err))
	}
	for _, end := range []int{server, client} {
		switch {
		case end < 0:
		case random.IntN(2) == 0:
			require.NoError(t, unix.Close(end))
			story = append(story, "one side closed it")
		default:
			open = append(open, end)
		}
	}
	return open, story
}

// Whatever sockets there are, and have been: what is said to work does, if no Config
// is said to, none does, and if one does it is among those that are named.
func TestAnyHolders(t *testing.T) {
	if !netns(t) {
		return
	}
	needUsers(t)
	shown := showsBound() // if not, all TCP sockets listen
	random := rand.New(rand.NewPCG(1, 1))
	hosts := []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"}
	sets := []semantics.Options{0, raddr, rport, raddr | rport}
	users := []int{os.Getuid(), os.Getuid(), nobody}
	rounds := 1000
	if testing.Short() {
		rounds = 200
	}
	sure, none, unknown, elsewhere := 0, 0, 0, 0
	for round := range rounds {
		proto, network := unix.IPPROTO_TCP, "tcp"
		if random.IntN(2) == 0 {
			proto, network = unix.IPPROTO_UDP, "udp"
		}
		port := uint16(2000 + round)
		var open []int
		var story []string
		for range 2 + random.IntN(4) {
			s := spec{
				Proto: proto, At: netip.AddrPortFrom(netip.MustParseAddr(hosts[random.IntN(len(hosts))]), port),
				V6Only: random.IntN(2) == 0, Options: sets[random.IntN(len(sets))], Listen: proto == unix.IPPROTO_TCP && (random.IntN(2) == 0 || !shown),
			}
			uid := users[random.IntN(len(users))]
			fd, _, err := s.as(uid)
			story = append(story, fmt.Sprintf("%+v as %d: %v", s, uid, err))
			if err == nil {
				open = append(open, fd)
			}
			if err == nil && s.Listen && random.IntN(2) == 0 {
				open, story = visit(t, random, s, fd, open, story)
			}
			if len(open) > 1 && random.IntN(4) == 0 {
				i := random.IntN(len(open))
				require.NoError(t, unix.Close(open[i]))
				open = append(open[:i], open[i+1:]...)
				story = append(story, fmt.Sprint("and closed number ", i))
			}
		}
		address := net.JoinHostPort(hosts[random.IntN(len(hosts))], strconv.Itoa(int(port)))
		if strings.HasPrefix(address, "0") {
			network += "4"
		}
		c := every()[random.IntN(len(every()))]
		l, err := bindAs(c, network, address)
		if err == nil {
			require.NoError(t, l.Close())
		} else {
			r, e := Explain(t.Context(), c, err)
			require.NoError(t, e)
			detail := fmt.Sprintf("round %d: %v\n%v %s\n%v", round, strings.Join(story, "\n"), c, address, r)
			assert.NotContains(t, r.Reason, "is gone", detail)
			text := strings.Join(r.Advice, " ")
			hopeless := strings.Contains(text, "No Config works")
			list, certain := advised(t, r)
			found := strings.Contains(text, "is not known") || strings.Contains(text, "No Config is sure")
			for _, next := range list {
				l, err := bindAs(next, network, address)
				if certain {
					sure++
					assert.NoError(t, err, detail)
				}
				if err == nil {
					found = true
					require.NoError(t, l.Close())
				}
			}
			for _, next := range every() {
				l, err := bindAs(next, network, address)
				if err != nil {
					continue
				}
				require.NoError(t, l.Close())
				if hopeless {
					assert.Fail(t, "a Config works", "%v: %v", next, detail)
				} else if !found {
					assert.Fail(t, "one that works is not named", "%v: %v", next, detail)
				}
				break
			}
			elsewhere += elsewhereWorks(t, r, c, port)
			if hopeless {
				none++
			}
			if found && len(list) == 0 {
				unknown++
			}
		}
		for _, fd := range open {
			require.NoError(t, unix.Close(fd))
		}
	}
	t.Logf("%d times one was sure to work, %d times none, %d times that was not known; %d times another address was", sure, none, unknown, elsewhere)
	assert.NotZero(t, none)
	assert.NotZero(t, elsewhere)
}
