package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"example.com/reuse"
)

// A request is what a socket is asked for by.
type request struct {
	network, address string
	isPacket         bool
}

// A socket is one that this process listens on or reads from.
type socket struct {
	request
	id       int
	listener net.Listener   // or
	packet   net.PacketConn // one of the two
	parent   bool           // the parent of a process holds it, too: it came from Files
	borrowed bool           // it was passed by the previous process
}

func (s *socket) String() string { return s.network + " " + s.address }

// raw is the value of package net.
func (s *socket) raw() interface {
	syscall.Conn
	io.Closer
} {
	if s.isPacket {
		return s.packet.(interface {
			syscall.Conn
			io.Closer
		})
	}
	return s.listener.(interface {
		syscall.Conn
		io.Closer
	})
}

func (s *socket) SyscallConn() (syscall.RawConn, error) { return s.raw().SyscallConn() }

func (s *socket) localAddr() net.Addr {
	if s.isPacket {
		return s.packet.LocalAddr()
	}
	return s.listener.Addr()
}

func (s *socket) close() { _ = s.raw().Close() } // an error says that it is closed

func (s *socket) closed() bool {
	rc, err := s.SyscallConn()
	return err != nil || rc.Control(func(uintptr) {}) != nil
}

func closeSockets(list []*socket) {
	for _, s := range list {
		s.close()
	}
}

// closeListeners leaves packet sockets to the caller, who may still have answers to
// write.
func closeListeners(list []*socket) {
	for _, s := range list {
		if !s.isPacket {
			s.close()
		}
	}
}

// open returns a socket for a request: one that was passed, one from Files, or a new
// one.
func (p *Process) open(ctx context.Context, c reuse.Config, r request) (*socket, error) {
	lc, err := c.ListenConfig(net.ListenConfig{Control: p.config.Control})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && p.config.Name != "" && strings.HasPrefix(r.network, "ip") {
		err = fmt.Errorf("%w: raw sockets cannot be passed", errors.ErrUnsupported)
	}
	if err != nil {
		return nil, listenError(r, err)
	}
	var s *socket
	var files bool
	if err := p.do(func() {
		if p.leaving {
			err = net.ErrClosed
			return
		}
		s = take(&p.passed, func(s *socket) bool { return s.request == r })
		files = len(p.files) > 0
	}); err != nil {
		return nil, listenError(r, err)
	}
	if err != nil {
		return nil, listenError(r, err)
	}
	if s == nil && files {
		if s, err = p.fromFiles(ctx, r); err != nil {
			return nil, err
		}
	}
	if s != nil {
		if err := s.verify(ctx, c); err != nil {
			if p.do(func() { p.putBack(s) }) != nil {
				s.close()
			}
			return nil, listenError(r, err)
		}
	} else if s, err = p.openNew(ctx, c, lc, r); err != nil {
		return nil, err
	}
	if ended := p.do(func() {
		if err = nil; p.leaving {
			err = net.ErrClosed
			return
		}
		if p.current {
			p.number(s)
		}
		kept := p.sockets[:0]
		for _, old := range p.sockets {
			if !old.closed() {
				kept = append(kept, old)
			}
		}
		p.sockets = append(kept, s)
	}); ended != nil || err != nil {
		s.close()
		return nil, listenError(r, net.ErrClosed)
	}
	return s, nil
}

// number gives a socket of the current process the number by which a newcomer names it.
func (p *Process) number(s *socket) {
	p.nextID++
	s.id = p.nextID
}

// take removes and returns the first socket that fits, or returns nil.
func take(list *[]*socket, fits func(*socket) bool) *socket {
	for i, s := range *list {
		if fits(s) {
			*list = append((*list)[:i:i], (*list)[i+1:]...)
			return s
		}
	}
	return nil
}

// putBack lets a socket be asked for again, with other options.
func (p *Process) putBack(s *socket) {
	if s.borrowed {
		p.passed = append([]*socket{s}, p.passed...)
	} else {
		p.files = append([]*socket{s}, p.files...)
	}
}

func listenError(r request, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return err
	}
	return &net.OpError{Op: "listen", Net: r.network, Err: err}
}

// openNew opens a socket. The kernel may still be closing those of a process that was
// killed a moment ago, and a Unix socket's file outlives its process.
func (p *Process) openNew(ctx context.Context, c reuse.Config, lc net.ListenConfig, r request) (*socket, error) {
	s := &socket{request: r}
	vanished := false
	if err := p.do(func() { vanished = p.vanished }); err != nil {
		return nil, listenError(r, err)
	}
	for patience := time.Now().Add(time.Second); ; {
		var err error
		switch {
		case r.isPacket && p.config.Control == nil:
			s.packet, err = c.ListenPacket(ctx, r.network, r.address) // which knows more about port 0
		case r.isPacket:
			s.packet, err = lc.ListenPacket(ctx, r.network, r.address)
		case p.config.Control == nil:
			s.listener, err = c.Listen(ctx, r.network, r.address)
		default:
			s.listener, err = lc.Listen(ctx, r.network, r.address)
		}
		switch {
		case err == nil:
			return s, nil
		case !addressInUse(err) || p.config.Name == "":
			return nil, err
		case strings.HasPrefix(r.network, "unix") && p.removeStale(ctx, r):
		case vanished && time.Now().Before(patience) && pause(ctx.Done(), 10*time.Millisecond) == nil:
		default:
			var op *net.OpError
			if errors.As(err, &op) {
				more := *op
				more.Err = fmt.Errorf("%w: no process that meets at %s passed a socket for %v", op.Err, p.config.meetingPlace(), s)
				err = &more
			}
			return nil, err
		}
	}
}

// removeStale removes a Unix socket's file that no socket listens on. Processes of one
// Name do this one after the other, as only one is about to be current.
func (p *Process) removeStale(ctx context.Context, r request) bool {
	file, err := os.Lstat(r.address)
	if err != nil || file.Mode().Type() != os.ModeSocket { // a file of another kind refuses, too
		return false
	}
	for since := time.Now(); ; {
		conn, err := new(net.Dialer).DialContext(ctx, r.network, r.address)
		if err == nil {
			conn.Close()
			return false
		}
		if !connectionRefused(err) {
			return false
		}
		if time.Since(since) >= staleAfter {
			break
		}
		if pause(ctx.Done(), 10*time.Millisecond) != nil {
			return false
		}
	}
	now, err := os.Lstat(r.address)
	return err == nil && os.SameFile(file, now) && os.Remove(r.address) == nil
}

// fromFiles returns the first of Config.Files that has the address and type that
// package net would give a new socket.
func (p *Process) fromFiles(ctx context.Context, r request) (*socket, error) {
	want, err := wouldOpen(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	var s *socket
	ended := p.do(func() {
		s = take(&p.files, func(s *socket) bool {
			have, err := s.shape()
			return err == nil && s.isPacket == r.isPacket && have == want
		})
	})
	if ended != nil {
		return nil, listenError(r, ended)
	}
	if s != nil {
		s.request = r
	}
	return s, nil
}

// A shape is where and how a socket is bound.
type shape struct {
	network    string // "tcp4", "tcp6" and so on, as for a Control function
	host, port string // the host is empty for a wildcard address, and a path for Unix
	v6only     bool   // of a wildcard address
}

func newShape(network, address string, sc syscall.RawConn) (sh shape, err error) {
	sh = shape{network: network, host: address}
	if strings.HasPrefix(network, "unix") {
		return sh, nil
	}
	if sh.host, sh.port, err = net.SplitHostPort(address); err != nil {
		return sh, err
	}
	if ip, err := netip.ParseAddr(sh.host); err == nil && !ip.IsUnspecified() {
		return sh, nil
	}
	sh.host = ""
	if strings.HasSuffix(network, "6") {
		sh.v6only, err = isV6Only(sc)
	}
	return sh, err
}

var errNotOpened = errors.New("not opened")

// wouldOpen returns the shape that package net would give a new socket. look is called
// with that socket before it is bound; it is not bound in the end.
func wouldOpen(ctx context.Context, r request, look func(network, address string, c syscall.RawConn) error) (sh shape, err error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if look != nil {
			if err := look(network, address, c); err != nil {
				return err
			}
		}
		var err error
		if sh, err = newShape(network, address, c); err != nil {
			return err
		}
		return errNotOpened
	}}
	if r.isPacket {
		_, err = lc.ListenPacket(ctx, r.network, r.address)
	} else {
		_, err = lc.Listen(ctx, r.network, r.address)
	}
	if errors.Is(err, errNotOpened) {
		err = nil
	}
	return sh, err
}

// shape returns the shape of a socket that is open.
func (s *socket) shape() (shape, error) {
	rc, err := s.SyscallConn()
	if err != nil {
		return shape{}, err
	}
	network, address := s.localAddr().Network(), s.localAddr().String()
	if !strings.HasPrefix(network, "unix") {
		if strings.HasPrefix(address, "[") {
			network += "6"
		} else {
			network += "4"
		}
	}
	return newShape(network, address, rc)
}

// verify fails with an OptionError unless the socket is as c asks for, as far as that
// can be seen: it is compared with a new one that c was applied to.
func (s *socket) verify(ctx context.Context, c reuse.Config) error {
	if c == (reuse.Config{}) {
		return nil
	}
	sh, err := s.shape()
	if err != nil {
		return err
	}
	r := request{s.network, s.localAddr().String(), s.isPacket}
	if sh.v6only || strings.HasSuffix(sh.network, "4") {
		r.network = sh.network
	}
	var want reuse.Config
	if _, err := wouldOpen(ctx, r, func(network, address string, rc syscall.RawConn) error {
		if err := c.Control(network, address, rc); err != nil {
			return err
		}
		want, err = reuse.Inspect(rawConn{rc})
		return err
	}); err != nil {
		return err
	}
	have, err := reuse.Inspect(s)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		option            reuse.Option
		asked, want, have reuse.Setting
	}{
		{reuse.Addr, c.Addr, want.Addr, have.Addr},
		{reuse.Port, c.Port, want.Port, have.Port},
		{reuse.PortLB, c.PortLB, want.PortLB, have.PortLB},
		{reuse.Exclusive, c.Exclusive, want.Exclusive, have.Exclusive},
	} {
		// What is shared is not exclusive, whether there is an option for that or not.
		exclusive := c.Exclusive == reuse.On && o.want == reuse.Off
		if (o.asked == reuse.On && o.want == reuse.On && o.have != reuse.On) ||
			((o.asked == reuse.Off || exclusive) && o.have == reuse.On) {
			option := o.option
			if exclusive {
				option = reuse.Exclusive
			}
			return &reuse.OptionError{Op: "check", Option: option, Err: errPassedOptions}
		}
	}
	return nil
}

var errPassedOptions = errors.New("the socket that was passed has other options, which only the process that opens it can set: stop that, and start anew")

// rawConn is a RawConn that is a syscall.Conn.
type rawConn struct{ syscall.RawConn }

func (c rawConn) SyscallConn() (syscall.RawConn, error) { return c.RawConn, nil }
