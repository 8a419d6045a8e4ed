package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probes are connections of the group to itself that are under way. No user sees
// one: the member that accepts it swallows it.
type probes struct {
	some atomic.Int32

	mu      sync.Mutex
	waiting map[netip.AddrPort]chan<- *member
}

func (p *probes) add(from netip.AddrPort, got chan<- *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[netip.AddrPort]chan<- *member{}
	}
	p.waiting[from] = got
	p.some.Store(int32(len(p.waiting)))
}

func (p *probes) remove(from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, from)
	p.some.Store(int32(len(p.waiting)))
}

// swallow closes a connection if it is a probe, and tells who accepted it.
func (p *probes) swallow(conn *net.TCPConn, by *member) bool {
	if p.some.Load() == 0 {
		return false
	}
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	p.mu.Lock()
	got, ok := p.waiting[from]
	p.mu.Unlock()
	if !ok {
		return false
	}
	conn.Close() // the other end, which is this process, resets it
	select {
	case got <- by:
	default:
	}
	return true
}

// probe finds out which of the group's members has an index: it attaches a program
// that sends one connection there and the others where base does, and connects.
// It returns nil if none of them accepted. If the index is a stranger's, that one
// sees a connection that says nothing and goes.
func (g *Group) probe(ctx context.Context, index uint32, base program) (*member, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	got := make(chan *member, 1)
	var from netip.AddrPort
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if from, err = bindTo(int(fd), g.target().Addr()); err == nil {
				g.probes.add(from, got)
				err = attach(g.listeners[0].member, base.except(from.Port(), index))
			}
		})
		return errors.Join(cerr, err)
	}}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", g.target().String())
	defer g.probes.remove(from)
	if err != nil {
		return nil, fmt.Errorf("group: a probe did not connect: %w", err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	if _, err := conn.Write([]byte{0}); err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		return nil, err
	}
	// It is in a queue now. If it is in one of ours, that will not stay empty, or
	// is being accepted.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for idle := 0; idle < 20; {
		select {
		case m := <-got:
			return m, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("group: a probe was not accepted: %w", ctx.Err())
		case <-tick.C:
		}
		idle++
		for _, m := range g.allMembers() {
			n, err := queued(m.l)
			if err != nil {
				return nil, err
			}
			if n > 0 || m.holding.Load() {
				idle = 0
			}
		}
	}
	return nil, nil
}

// target is where the group reaches itself.
func (g *Group) target() netip.AddrPort {
	at := g.listeners[0].member.l.Addr().(*net.TCPAddr).AddrPort()
	ip := at.Addr().Unmap()
	switch {
	case ip.IsUnspecified() && ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, at.Port())
}

// bindTo binds a socket to an address and any port.
func bindTo(fd int, ip netip.Addr) (netip.AddrPort, error) {
	var sa unix.Sockaddr
	if ip.Is4() {
		sa = &unix.SockaddrInet4{Addr: ip.As4()}
	} else {
		six := &unix.SockaddrInet6{Addr: ip.As16()}
		if zone := ip.Zone(); zone != "" {
			i, err := net.InterfaceByName(zone)
			if err != nil {
				return netip.AddrPort{}, err
			}
			six.ZoneId = uint32(i.Index)
		}
		sa = six
	}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(ip, uint16(name.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(ip, uint16(name.Port)), nil
	}
	return netip.AddrPort{}, errors.New("group: a probe has no address")
}

func (g *Group) allMembers() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*member(nil), g.members...)
}
