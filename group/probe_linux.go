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
	some atomic.Int32 // the length of waiting

	mu      sync.Mutex
	waiting map[netip.AddrPort]chan<- *member
	running int           // reasons to accept at once
	rush    chan struct{} // closed while there are any
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

// begin lets the members accept whatever is queued, also if the user does not accept:
// a user may well call TakeOver first and Serve then, and a probe is behind others.
func (p *probes) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running++; p.running == 1 {
		if p.rush == nil {
			p.rush = make(chan struct{})
		}
		close(p.rush)
	}
}

func (p *probes) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running--; p.running == 0 {
		p.rush = nil
	}
}

// begun returns a channel that is closed as soon as begin has been called, and end
// has not.
func (p *probes) begun() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rush == nil {
		p.rush = make(chan struct{})
	}
	return p.rush
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
	delete(p.waiting, from)
	p.some.Store(int32(len(p.waiting)))
	p.mu.Unlock()
	if !ok {
		return false
	}
	conn.Close() // the other end, which is this process, resets it
	got <- by    // has room
	return true
}

// probe finds out which of the group's members has an index: it attaches a program
// that sends one connection there and the others where base does, and connects.
// It returns nil if none of them accepted. If the index is a stranger's, that one
// sees a connection that says nothing and goes.
func (g *Group) probe(ctx context.Context, index uint32, base program) (*member, error) {
	m := g.first()
	if m == nil {
		return nil, g.closedError("probe")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	g.probes.begin()
	defer g.probes.end()
	got := make(chan *member, 1)
	var from netip.AddrPort
	at := g.target()
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if from, err = bindTo(int(fd), at.Addr()); err == nil {
				g.probes.add(from, got)
				err = attach(m, base.except(from.Port(), index))
			}
		})
		return errors.Join(cerr, err)
	}}
	d.SetMultipathTCP(false)
	dialed, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		if ctx.Err() == nil {
			g.probes.remove(from)
		} // else it may be in a queue nevertheless, and is still to be swallowed
		return nil, fmt.Errorf("group: a probe did not connect: %w", err)
	}
	conn := dialed.(*net.TCPConn)
	defer conn.Close()
	_ = conn.SetLinger(0)
	_, _ = conn.Write([]byte{0}) // fails if it has been swallowed
	if err := arrived(ctx, conn); err != nil {
		return nil, err
	}

	// It is in a queue now, or accepted. How many does each member have to accept
	// until it would have come to this one? One may be neither queued nor counted.
	var ahead []func() (bool, error)
	for _, m := range g.allMembers() {
		n, err := queued(m.l)
		if err != nil {
			return nil, err
		}
		until := m.accepts.Load() + uint64(n) + 1
		ahead = append(ahead, func() (bool, error) {
			n, err := queued(m.l)
			return n > 0 && m.accepts.Load() < until, err
		})
	}
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
		for len(ahead) > 0 {
			more, err := ahead[0]()
			if err != nil {
				return nil, err
			}
			if more {
				break
			}
			ahead = ahead[1:]
		}
		if len(ahead) == 0 {
			idle++
		}
	}
	g.probes.remove(from)
	select {
	case m := <-got: // meanwhile
		return m, nil
	default:
		return nil, nil
	}
}

// arrived waits until the other end's kernel has a connection in its queue, which
// it has when it acknowledges data.
func arrived(ctx context.Context, conn *net.TCPConn) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var info *unix.TCPInfo
		cerr := rc.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
		if err := errors.Join(cerr, os.NewSyscallError("getsockopt", err)); err != nil {
			return err
		}
		if info.Unacked == 0 {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("group: a probe did not arrive: %w", err)
		}
	}
}

// target is where the group reaches itself.
func (g *Group) target() netip.AddrPort {
	at := g.Addr().(*net.TCPAddr).AddrPort()
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
