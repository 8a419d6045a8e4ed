package group

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"example.com/reuse/internal/sockdiag"
)

func (g *PacketGroup) takeOver(ctx context.Context, members int) error {
	if err := g.mayTakeOver(ctx, members); err != nil {
		return err
	}
	conns, cookies := g.open()
	if len(conns) == 0 {
		return g.error("take over", net.ErrClosed)
	}
	all, err := sharing(conns[0], cookies[0])
	if err != nil {
		return g.error("take over", err)
	}
	for _, cookie := range cookies {
		if !slices.Contains(all.cookies, cookie) {
			return g.error("take over", errNotShown)
		}
	}
	if members > len(all.cookies) {
		return fmt.Errorf("group: %w: %d members, and there are %d sockets", os.ErrInvalid, members, len(all.cookies))
	}
	return nil
}

func (g *PacketGroup) drain(ctx context.Context) error {
	if err := g.begin("drain"); err != nil {
		return err
	}
	conns, cookies := g.open()
	if len(conns) == 0 {
		return g.error("drain", net.ErrClosed)
	}
	var lost datagrams
	before, err := sharing(conns[0], cookies[0])
	lost.add(0, err)
	hidden := conns[:0:0]
	for _, c := range conns {
		if err := c.hide(); err != nil {
			lost.add(0, err)
			continue
		}
		hidden = append(hidden, c)
	}
	lost.add(0, before.remains(cookies))
	settleQueues()
	lost.add(0, waitRead(ctx, conns))
	for _, c := range conns {
		lost.add(0, c.endReads())
	}
	for _, c := range hidden {
		n, err := c.abandon()
		lost.add(n, err)
		if n > 0 {
			lost.add(0, errUnread)
		}
	}
	return lost.err()
}

var (
	errNoSuccessor = errors.New("no other socket of this user received on the address meanwhile")
	errNotShown    = errors.New("sock_diag does not show this process's own socket")
	errUnread      = errors.New("not read")
)

// datagrams is what a drain has lost, and why.
type datagrams struct {
	abandoned int
	why       []error
}

func (d *datagrams) add(n int, err error) {
	d.abandoned += n
	if err != nil && !slices.ContainsFunc(d.why, func(e error) bool { return e.Error() == err.Error() }) {
		d.why = append(d.why, err)
	}
}

func (d *datagrams) err() error {
	if len(d.why) == 0 {
		return nil
	}
	return d
}

func (d *datagrams) Unwrap() []error { return d.why }

func (d *datagrams) Error() string {
	words := make([]string, len(d.why))
	for i, err := range d.why {
		words[i] = err.Error()
	}
	what := "what came meanwhile may be lost"
	if d.abandoned > 0 {
		what = fmt.Sprintf("%d datagrams abandoned", d.abandoned)
	}
	return fmt.Sprintf("group: drained, but %s: %s", what, strings.Join(words, "; "))
}

// open returns the sockets that were not closed, and the kernel's names for them.
func (g *PacketGroup) open() (conns []*packetConn, cookies []uint64) {
	for _, c := range g.conns {
		var cookie uint64
		err := onPacket(c.UDPConn, func(fd int) (err error) {
			cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
			return err
		})
		if err == nil {
			conns, cookies = append(conns, c), append(cookies, cookie)
		}
	}
	return conns, cookies
}

// A packetAddress is an address as a UDP socket binds it, and the sockets that
// receive on it.
type packetAddress struct {
	family  uint8
	port    uint16
	cookies []uint64
}

// sharing finds the sockets that share an address with c, and c.
func sharing(c *packetConn, cookie uint64) (packetAddress, error) {
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	a := packetAddress{family: unix.AF_INET6, port: at.Port()}
	if at.Addr().Unmap().Is4() {
		a.family = unix.AF_INET
	}
	list, err := sockdiag.UDP(a.family, at.Port(), sockdiag.Unconnected)
	if err != nil {
		return a, err
	}
	i := slices.IndexFunc(list, func(s sockdiag.Socket) bool { return s.Cookie == cookie })
	if i < 0 {
		return a, errNotShown
	}
	mine := list[i]
	for _, s := range list {
		if s.Local == mine.Local && s.V6Only == mine.V6Only && s.Interface == mine.Interface && s.UID == mine.UID {
			a.cookies = append(a.cookies, s.Cookie)
		}
	}
	return a, nil
}

// remains makes sure that one of the sockets found before, other than those just
// hidden, still receives: then it did so all the time. Of two groups that drain at
// the same time and leave nobody, at least one finds that out. A cookie is never
// used twice.
func (a packetAddress) remains(hidden []uint64) error {
	if len(a.cookies) == 0 {
		return nil // has failed already
	}
	list, err := sockdiag.UDP(a.family, a.port, sockdiag.Unconnected)
	if err != nil {
		return err
	}
	for _, s := range list {
		if slices.Contains(a.cookies, s.Cookie) && !slices.Contains(hidden, s.Cookie) {
			return nil
		}
	}
	return errNoSuccessor
}

// hide turns new datagrams away from the socket: it connects it to itself. Then only
// datagrams with its own address and port as their source reach it, and nobody else
// can have those. Nothing is sent; what is queued stays, and the socket can still
// send to any address.
//
// A connect gives a socket on the wildcard address an address of its own, here the
// loopback's, which would be the source of its datagrams: see source. And udp_lib_rehash
// moves it from one list to another without an RCU grace period: who stands on it there
// goes on in the wrong list, and finds nobody. IPv6 sockets that share are listed oldest
// first, so that is everybody; of IPv4 the newest is first, and found before (source;
// 57 datagrams refused in 208,893 such connects, IPv4 1 in 67,825: measured, 6.18).
// A newcomer that moves itself to the front, with a connect and another to AF_UNSPEC,
// mends that (1 in 132,987) and must not: it then gets datagrams only from the address
// it was connected to, as IPv6 does not forget that.
func (c *packetConn) hide() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return onPacket(c.UDPConn, func(fd int) error {
		to, err := unix.Getsockname(fd)
		if err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		switch to := to.(type) {
		case *unix.SockaddrInet4:
			if to.Addr == netip.IPv4Unspecified().As4() {
				c.moved = true
				to.Addr = [4]byte{127, 0, 0, 1}
			}
		case *unix.SockaddrInet6:
			if to.Addr == netip.IPv6Unspecified().As16() {
				c.moved = true
				to.Addr = netip.IPv6Loopback().As16()
				if unix.Connect(fd, to) == nil {
					return nil
				}
				// A container without IPv6 has dual-stack sockets and no ::1.
				to.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1}).As16()
			}
		}
		return os.NewSyscallError("connect", unix.Connect(fd, to))
	})
}

// source returns a control message for a datagram from a socket on the wildcard
// address that was connected. Its source is to be what the kernel would have chosen
// without the connect. For IPv4 a source of 0.0.0.0 asks for that. For IPv6 :: does
// not (both measured, 6.18), and another socket has to be asked.
func source(to netip.AddrPort) ([]byte, error) {
	ip := to.Addr()
	if ip.Unmap().Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{}), nil
	}
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	peer := &unix.SockaddrInet6{Addr: ip.As16(), Port: int(to.Port())}
	if zone := ip.Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			peer.ZoneId = uint32(n)
		} else if ifi, err := net.InterfaceByName(zone); err == nil {
			peer.ZoneId = uint32(ifi.Index)
		}
	}
	if err := unix.Connect(s, peer); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	from, err := unix.Getsockname(s)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	in6, ok := from.(*unix.SockaddrInet6)
	if !ok {
		return nil, unix.EAFNOSUPPORT
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: in6.Addr}), nil
}

// waitRead waits until the queues have been empty for a while, or ctx ends.
func waitRead(ctx context.Context, conns []*packetConn) error {
	for since := time.Now(); ; {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
		waiting := false
		for _, c := range conns {
			yes, err := c.readable()
			if err != nil {
				return err
			}
			waiting = waiting || yes
		}
		if waiting {
			since = time.Now()
		} else if time.Since(since) >= quiet {
			return nil
		}
	}
}

// readable tells whether a datagram is queued. Its size, from SIOCINQ, would be 0 for
// an empty one.
func (c *packetConn) readable() (yes bool, err error) {
	err = onPacket(c.UDPConn, func(fd int) error {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			yes = true // ask again
			return nil
		}
		yes = p[0].Revents&unix.POLLIN != 0
		return os.NewSyscallError("poll", err)
	})
	return yes, err
}

// abandon counts and drops what is still queued. The socket is hidden, so it ends.
func (c *packetConn) abandon() (n int, err error) {
	err = onPacket(c.UDPConn, func(fd int) error {
		for {
			_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT)
			switch err {
			case nil:
				n++
			case unix.EINTR:
			case unix.EAGAIN:
				return nil
			default:
				return os.NewSyscallError("recvfrom", err)
			}
		}
	})
	return n, err
}

// blindPacket hides a socket from datagrams in the instant when it closes, as blind
// does a listener: without, members of a group that a program never chose lost 62
// datagrams in 10,000 closes on udp4 (measured, 6.18). Before 5.7 that needs
// privileges, or does not exist: then the close does as it always did.
func blindPacket(c *net.UDPConn) error {
	err := onPacket(c, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, math.MaxInt32))
	})
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

func onPacket(c *net.UDPConn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
