// Package handover lets the next process of a server take the sockets of the running
// one, so that a restart loses no connection.
//
// Both processes hold the same sockets for a moment, so there is one accept queue, which
// is never closed. The new process finds the running one by the Name of the service,
// receives its sockets, and reports when it is ready. The running process then closes its
// listeners, answers what it has accepted, and exits.
//
//	p, err := handover.Config{Name: "web"}.Start(ctx)
//	l, err := p.Listen(ctx, reuse.Config{}, "tcp", ":8080") // taken over, or opened
//	go serve(l)                    // Accept returns net.ErrClosed when replaced
//	err = p.Ready(ctx)             // the previous process closes its listeners
//	<-p.Replaced()                 // a successor is ready: finish, and exit
//
// For net/http use package [example.com/reuse/handover/handoverhttp]. docs/restart.md
// shows other servers, systemd and Kubernetes.
//
// # Promises
//
// Among the processes that find each other, at most one is current, and at most one
// is about to be. Both may accept in between. No connection is lost between the SYN
// and Accept, even if one of the two is killed before the successor is ready. After
// that the successor holds the queue alone.
//
// Listeners are package net's own types. The caller must not call shutdown(2) on
// them. A server's Serve returns [net.ErrClosed] at a hand-over while requests still
// run: exit only when these are answered.
//
// # Who can take over
//
// Any process of the same user and network namespace that is started with the same Name
// and address takes the service over (docs/restart.md, "Hand-over"). User 0 in
// a container on the host's network is the host's user 0. On Linux any local user can bind
// the Name first. Start then fails and names the user. A Dir that only one user can write
// prevents this.
//
// # Systems
//
// Linux, Android, FreeBSD, NetBSD, OpenBSD, DragonFly, macOS, iOS, Solaris, illumos,
// AIX. Tests run on Linux and gVisor. On Windows, js, wasip1 and Plan 9 Start with
// a Name returns an error that wraps [errors.ErrUnsupported]. With an empty Name
// everything else works there.
package handover

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"example.com/reuse"
)

// A Config names the service of a process.
type Config struct {
	// Name is the service, 1 to 64 bytes without "/" and NUL. Processes of one user
	// with one Name succeed each other. Workers that run side by side have a Name
	// each, such as "web-1" and "web-2". If Name is empty there is no succession.
	Name string

	// Dir is a folder for the Unix socket at which the processes meet. It belongs to this
	// user and has mode 0700. In a folder that only this user or root can write, Start
	// makes a folder "reuse" with that mode. If Dir is empty the socket is an abstract
	// one on Linux, and elsewhere in a folder of this user in [os.TempDir]. Set Dir on
	// macOS, which empties that folder, and for processes that have different user ids
	// in user namespaces or are kept apart by SELinux, AppArmor or Landlock.
	Dir string

	// Files are sockets that a parent passed to this process, as systemd does. They are
	// used before a new socket is opened, if they have the address and type that package
	// net would give it, and are passed on to the next process. Drain never hides them,
	// because the parent keeps their queue. Start takes copies.
	Files []*os.File

	// Control sets further options on sockets that are opened, before the bind and after
	// the options of reuse.Config. It may be nil. It does not run for passed sockets. With
	// Control, ListenPacket refuses port 0 together with an option that shares on Linux,
	// as reuse.Config.ListenConfig does.
	Control func(network, address string, c syscall.RawConn) error
}

// Start connects to the running process of this Name, if there is one, and receives
// its sockets. If another process is already about to succeed it, Start waits for that.
// ctx bounds the call, not the Process.
//
// Start fails if another user holds the Name's socket, and if the running process is in
// another network namespace or does not answer for 10 seconds. The error names that process
// and wraps ctx's error if ctx ended the wait, or [os.ErrDeadlineExceeded]. The running
// process continues to serve.
func (c Config) Start(ctx context.Context) (*Process, error) {
	p := &Process{
		config:   c,
		id:       rand.Text(),
		calls:    make(chan func()),
		ended:    make(chan struct{}),
		done:     make(chan struct{}),
		replaced: make(chan struct{}),
		turn:     make(chan struct{}, 1),
		changed:  make(chan struct{}),
	}
	if err := p.start(ctx); err != nil {
		closeSockets(p.files)
		return nil, c.wrap("start", err)
	}
	go p.own()
	return p, nil
}

func (p *Process) start(ctx context.Context) (err error) {
	name := p.config.Name
	if len(name) > 64 || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return fmt.Errorf(`%w: a Name has 1 to 64 bytes without "/" and NUL, and is not "." or ".."`, os.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.files, err = adoptFiles(p.config.Files); err != nil || name == "" {
		return err
	}
	m, err := p.config.meet(ctx, p.id)
	if err == nil {
		p.join(m)
	}
	return err
}

func (c Config) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("handover: %s %q: %w", doing, c.Name, err)
}

// Listen returns the next socket of this network and address that was passed, or
// opens one with c's options as [reuse.Config.Listen] does. The listener is
// a [*net.TCPListener] or [*net.UnixListener]. It accepts at once. Call Listen for
// every address before the first Ready: what was not asked for by then is closed.
// Passed sockets are found by network and address as the previous process wrote them,
// without a look-up of names. With a Name, Listen removes a Unix socket file that refuses
// connections.
//
// File().Fd() and [os/exec.Cmd.ExtraFiles] make a socket blocking for every process
// that holds it, so that Accept and Close hang. Use SyscallConn.
//
// The error is a [*net.OpError], as in package net. It wraps [net.ErrClosed] after Close,
// Drain or Replaced, and a [reuse.OptionError] if a passed socket does not have an option
// that is On, or has one that is Off. The socket can then be asked for with other options.
// To change an option, stop the old process first.
func (p *Process) Listen(ctx context.Context, c reuse.Config, network, address string) (net.Listener, error) {
	s, err := p.open(ctx, c, request{network, address, false})
	if err != nil {
		return nil, err
	}
	return s.netSocket.(net.Listener), nil
}

// ListenPacket is Listen for packet sockets. The result is a [*net.UDPConn] or
// [*net.UnixConn]. Read after Ready, so that a process that fails earlier takes no
// datagram. Process never closes a packet socket. When Replaced is closed, the caller
// stops reading, writes the last answers and closes without delay: until then datagrams
// are lost if the successor dies.
func (p *Process) ListenPacket(ctx context.Context, c reuse.Config, network, address string) (net.PacketConn, error) {
	s, err := p.open(ctx, c, request{network, address, true})
	if err != nil {
		return nil, err
	}
	return s.netSocket.(net.PacketConn), nil
}

// Ready makes the previous process close its listeners, and this one current: from
// now on it can be succeeded. Ready returns nil at once if there is no previous process,
// if that has died, or after a successful Ready.
//
// Ready fails and changes nothing if the previous process has sockets and this one asked
// for none of them, because the two are then different services. If ctx ends before the
// previous process has agreed, that process continues to serve, and the error names it and
// wraps ctx's error. Ready may then be called again. After Close, and after a Drain without
// a successful Ready, the error wraps [net.ErrClosed].
func (p *Process) Ready(ctx context.Context) error { return p.config.wrap("ready", p.ready(ctx)) }

// Replaced returns a channel that is closed when a successor is current and this
// process has closed its listeners, or Drain has left them to the next process. It is
// never closed for an empty Name.
func (p *Process) Replaced() <-chan struct{} { return p.replaced }

// Predecessor returns the process id of the process whose sockets Start received, and
// 0 if there was none or if it is not visible from here.
func (p *Process) Predecessor() int { return p.predecessor }

// Drain leaves the service without a successor. It hides the listeners from new
// connections, waits until the caller's Accept loops have emptied their queues, and
// closes them. A handshake that needs longer than 20 ms to finish is reset. Sockets from
// Files, whose queue the parent keeps, and sockets that a next process already holds are
// closed without waiting. That process becomes current. Packet sockets stay open.
//
// Listeners can be hidden on Linux 5.7 and later (TCP) and where they have a path
// (Unix sockets). Elsewhere connections that arrive during the close are lost, and the
// error wraps [errors.ErrUnsupported]. If ctx ends the wait, the error wraps ctx's. In
// each case everything is closed. Later calls wait for the first.
func (p *Process) Drain(ctx context.Context) error { return p.config.wrap("drain", p.drain(ctx)) }

// Close closes the listeners at once, which resets the connections in their queues if
// no other process holds them. Later calls return nil.
func (p *Process) Close() error {
	_ = p.do(func() { p.over = true }) // an error says that it has ended already
	<-p.done
	return nil
}
