package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A PacketGroup is a number of UDP sockets on one address that belong together.
//
// The kernel hashes each flow of datagrams, that is the addresses and ports of both
// ends, to one of the sockets that share the address. When sockets come or go,
// flows move to others. So a protocol that keeps a session on an unconnected socket,
// as servers of QUIC and DTLS do, loses sessions in every hand-over; one that
// answers each datagram by itself, as DNS does, loses nothing, but for what Drain says
// of IPv6 wildcard addresses. A socket that the server has connected to its client keeps
// that client's datagrams; it is no member of the group, and Drain does not wait for it.
//
//	g, err := group.Config{}.ListenPacket(ctx, "udp", ":53")
//	for _, c := range g.Conns() {
//		go serve(c) // until ReadFrom returns net.ErrClosed
//	}
//	err = g.TakeOver(ctx, 0) // the old process is told to go
//
// and, when the process itself is to go, because its successor has taken over:
//
//	err = g.Drain(ctx) // every datagram has been read
//	...                // the last answers are written
//	err = g.Close()
type PacketGroup struct {
	network string
	conns   []*packetConn

	mu     sync.Mutex
	ended  bool // Drain or Close has begun
	closed bool
}

// ListenPacket opens the sockets of a group, all or none. network is "udp", "udp4"
// or "udp6". With port 0 the first chooses, and never a port that another socket
// has; the others join it. HoldFor and Handshake are not used.
//
// A multicast address is refused: its datagrams are not spread but copied to every
// socket.
func (c Config) ListenPacket(ctx context.Context, network, address string) (*PacketGroup, error) {
	c, err := c.check()
	if err != nil {
		return nil, listenError(network, err)
	}
	switch {
	case network == "udp" || network == "udp4" || network == "udp6":
	case strings.HasPrefix(network, "unix") || strings.HasPrefix(network, "ip"):
		return nil, listenError(network, fmt.Errorf("group: %w: no address can be shared", errors.ErrUnsupported))
	default:
		return nil, listenError(network, net.UnknownNetworkError(network))
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsMulticast() {
			return nil, listenError(network, fmt.Errorf("group: %w: multicast is copied to every socket", errors.ErrUnsupported))
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, listenError(network, err)
	}
	g := &PacketGroup{network: network}
	for range c.Size {
		p, err := c.Socket.ListenPacket(ctx, network, address)
		if err != nil {
			_ = g.closeConns() // that of the one that cannot be had is told
			return nil, err
		}
		g.conns = append(g.conns, &packetConn{UDPConn: p.(*net.UDPConn)})
		address = p.LocalAddr().String()
	}
	return g, nil
}

// LocalAddr returns the group's address.
func (g *PacketGroup) LocalAddr() net.Addr { return g.conns[0].LocalAddr() }

// Conns returns the sockets, in the order in which they were opened. Each has the
// methods of a [*net.UDPConn] and can be used as one, with an interface that has
// those that are needed; it is a syscall.Conn, too. To close one takes it out of
// the group: its queue is lost then; Drain is for all of them.
func (g *PacketGroup) Conns() []net.PacketConn {
	list := make([]net.PacketConn, len(g.conns))
	for i, c := range g.conns {
		list[i] = c
	}
	return list
}

// Close closes the sockets at once, or after Drain for good. Datagrams that were not
// read are lost. A Drain under way ends.
func (g *PacketGroup) Close() error {
	g.mu.Lock()
	closed := g.closed
	g.ended, g.closed = true, true
	g.mu.Unlock()
	if closed {
		return g.error("close", net.ErrClosed)
	}
	return g.closeConns()
}

func (g *PacketGroup) closeConns() error {
	var errs []error
	for _, c := range g.conns {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// begin marks the group as ended; it fails if it was.
func (g *PacketGroup) begin(op string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return g.error(op, net.ErrClosed)
	}
	g.ended = true
	return nil
}

// mayTakeOver checks what TakeOver is asked for.
func (g *PacketGroup) mayTakeOver(ctx context.Context, members int) error {
	if members < 0 || members > 0 && members < len(g.conns) {
		return fmt.Errorf("group: %w: %d members, and the group has %d sockets", os.ErrInvalid, members, len(g.conns))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return g.error("take over", net.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return g.error("take over", err)
	}
	return nil
}

func (g *PacketGroup) error(op string, err error) error {
	return &net.OpError{Op: op, Net: g.network, Addr: g.LocalAddr(), Err: err}
}

// A packetConn is a UDP socket whose reads end before its writes do.
type packetConn struct {
	*net.UDPConn

	mu      sync.Mutex // orders read deadlines
	drained atomic.Bool

	writing sync.RWMutex // orders writes with Drain
	moved   bool         // Drain has changed the socket's own address
}

// endReads makes reads return net.ErrClosed, those under way, too.
func (c *packetConn) endReads() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drained.Store(true)
	return c.UDPConn.SetReadDeadline(time.Unix(1, 0))
}

// readError is the error of a read.
func (c *packetConn) readError(err error) error {
	if err != nil && c.drained.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Err: net.ErrClosed}
	}
	return err
}

func (c *packetConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	return n, c.readError(err)
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.UDPConn.ReadFrom(b)
	return n, from, c.readError(err)
}

func (c *packetConn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, from, err := c.UDPConn.ReadFromUDP(b)
	return n, from, c.readError(err)
}

func (c *packetConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := c.UDPConn.ReadFromUDPAddrPort(b)
	return n, from, c.readError(err)
}

func (c *packetConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	n, oobn, flags, from, err = c.UDPConn.ReadMsgUDP(b, oob)
	return n, oobn, flags, from, c.readError(err)
}

func (c *packetConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	n, oobn, flags, from, err = c.UDPConn.ReadMsgUDPAddrPort(b, oob)
	return n, oobn, flags, from, c.readError(err)
}

func (c *packetConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline has nothing left to do when reads have ended.
func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drained.Load() {
		return nil
	}
	return c.UDPConn.SetReadDeadline(t)
}

// Write fails, as there is no destination. The socket's own Write would have one
// after Drain: the socket itself.
func (c *packetConn) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Err: errors.New("missing address")}
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if to, ok := to.(*net.UDPAddr); ok {
		return c.WriteToUDP(b, to)
	}
	return c.UDPConn.WriteTo(b, to) // fails
}

func (c *packetConn) WriteToUDP(b []byte, to *net.UDPAddr) (int, error) {
	c.writing.RLock()
	defer c.writing.RUnlock()
	if !c.moved || to == nil {
		return c.UDPConn.WriteToUDP(b, to)
	}
	n, _, err := c.writeMoved(b, nil, to.AddrPort())
	return n, err
}

func (c *packetConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.writing.RLock()
	defer c.writing.RUnlock()
	if !c.moved {
		return c.UDPConn.WriteToUDPAddrPort(b, to)
	}
	n, _, err := c.writeMoved(b, nil, to)
	return n, err
}

func (c *packetConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	c.writing.RLock()
	defer c.writing.RUnlock()
	if !c.moved || to == nil {
		return c.UDPConn.WriteMsgUDP(b, oob, to)
	}
	return c.writeMoved(b, oob, to.AddrPort())
}

func (c *packetConn) WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	c.writing.RLock()
	defer c.writing.RUnlock()
	if !c.moved {
		return c.UDPConn.WriteMsgUDPAddrPort(b, oob, to)
	}
	return c.writeMoved(b, oob, to)
}

// writeMoved writes with the source address that the socket had before Drain changed
// it. One that the caller names in oob comes later and wins.
func (c *packetConn) writeMoved(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	from, err := source(to)
	if err != nil {
		return 0, 0, &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Addr: net.UDPAddrFromAddrPort(to), Err: err}
	}
	n, oobn, err = c.UDPConn.WriteMsgUDPAddrPort(b, append(from, oob...), to)
	return n, max(0, oobn-len(from)), err
}

// SyscallConn's Read ends as the other reads do. After Drain, a datagram that is
// written with SyscallConn needs a destination, and on a wildcard address a source,
// too (IP_PKTINFO).
func (c *packetConn) SyscallConn() (syscall.RawConn, error) {
	rc, err := c.UDPConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &rawPacketConn{rc, c}, nil
}

// Close closes this socket alone.
func (c *packetConn) Close() error {
	err := blindPacket(c.UDPConn)
	if closeErr := c.UDPConn.Close(); closeErr != nil {
		return closeErr // the other one may be because it was closed
	}
	return err
}

type rawPacketConn struct {
	syscall.RawConn
	c *packetConn
}

func (r *rawPacketConn) Read(f func(fd uintptr) bool) error { return r.c.readError(r.RawConn.Read(f)) }

// TakeOver makes sure that this group receives datagrams, beside whoever received
// them before, and that the sockets from before can be drained: the newest of this
// address, as many as members says, are enough; 0 means this group's own. In
// a generation of several processes each calls ListenPacket, and then exactly one
// calls TakeOver with the number of all their sockets.
//
// Nothing is steered: old and new sockets receive, each its flows, until the old
// ones drain. Then what arrives goes to the new ones. So nobody waits for anybody,
// and newcomers may come at the same time.
//
// An error wraps os.ErrInvalid if there are not as many sockets; net.ErrClosed after
// Drain or Close; errors.ErrUnsupported on systems without a way to drain.
func (g *PacketGroup) TakeOver(ctx context.Context, members int) error {
	return g.takeOver(ctx, members)
}

// Drain turns new datagrams away from this group, to those that share its address,
// and waits until what is queued has been read. Then reads return net.ErrClosed.
// Writes work until Close, which is due when the last answer is written.
//
// It returns nil only if another socket of this user received on the address all the
// time, and the queues were empty when reads ended. Otherwise the error says why, and
// how many datagrams were abandoned. At the end of ctx what is left is abandoned;
// nobody else ends the wait for a reader that does not read.
//
// An older kernel goes on to choose a connected socket that shares an address for the
// datagrams of strangers (source), and a nil error could be wrong there. Which version
// mended that is not known for sure, 5.4 perhaps; 6.18 was measured.
//
// On a wildcard address of IPv6, that of both families included, the kernel may refuse
// a datagram while it hides a socket, as it moves that between two lists which others
// are reading. Under 260,000 datagrams a second that was one in 3,700 sockets (measured,
// 6.18: 57 in 208,893; with IPv4, where nothing explains it, 1 in 67,825). Drain cannot
// see it.
//
// On systems other than Linux Drain ends reads at once, and the error wraps
// errors.ErrUnsupported.
func (g *PacketGroup) Drain(ctx context.Context) error { return g.drain(ctx) }
