// Package handover lets the next process of a server take the sockets of the one
// that runs, so that a restart loses no connection.
//
// Both processes hold the same sockets for a moment, so there is one accept queue, which
// is never closed. The new process is started by a shell, a service manager or the running
// process. It finds the running process by the Name of the service, receives the sockets,
// and reports when it is ready. Then the running process closes its listeners, answers
// what it has accepted, and exits.
//
//	p, err := handover.Config{Name: "web"}.Start(ctx)
//	l, err := p.Listen(ctx, reuse.Config{}, "tcp", ":8080") // taken over, or opened
//	go serve(l)                    // Accept returns net.ErrClosed when replaced
//	err = p.Ready(ctx)             // the previous process closes its listeners
//	<-p.Replaced()                 // a successor is ready: finish, and exit
//
// For net/http use package [example.com/reuse/handover/handoverhttp], which does all
// of this. docs/restart.md shows other servers, and how to run two processes with
// systemd and Kubernetes.
//
// # Promises
//
// Among the processes that find each other, at most one is current, and at most one
// is about to be. Both may accept in between. No connection is lost between the SYN
// and Accept, even if one of the two is killed before the successor is ready. After
// that the successor holds the queue alone.
//
// A passed socket is checked like a new one: [Process.Listen] fails with
// a [reuse.OptionError] if an option that is On is not in force, or one that is Off
// is set. To change an option, stop the old process first.
//
// Listeners are package net's own types. The caller must not call shutdown(2) on
// them, and a server's Serve returns [net.ErrClosed] at a hand-over while requests
// still run: exit only when these are answered.
//
// # Who can take over
//
// Any process of the same user that is started with the same Name and address takes
// the service over. On Linux processes meet at an abstract Unix socket whose name
// contains the effective user id, and both check the user of the other. Processes of
// another user or another network namespace do not meet. Any local user can bind that name first;
// Start then fails and names the user. A Dir that only one user can write prevents
// this. User 0 in a container on the host's network is the host's user 0.
//
// # Systems
//
// Linux, Android, FreeBSD, NetBSD, OpenBSD, DragonFly, macOS, iOS, Solaris, illumos,
// AIX. On Windows (whose Unix sockets pass no descriptors), js, wasip1 and Plan 9
// Start with a Name returns an error that wraps [errors.ErrUnsupported]. With an
// empty Name everything else works there.
package handover

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"example.com/reuse"
)

// A Config says which service a process belongs to.
type Config struct {
	// Name is the service, 1 to 64 bytes without "/" and NUL. Processes of one user
	// with one Name succeed each other. Workers that run side by side have a Name
	// each, such as "web-1" and "web-2". If Name is empty there is no succession.
	Name string

	// Dir is a folder for the socket at which the processes meet, for processes
	// that cannot use the abstract namespace: with another user id in a user
	// namespace, or kept apart by SELinux, AppArmor or Landlock. It belongs to this
	// user and has mode 0700. In a folder that only this user or root can write,
	// a folder "reuse" with that mode is made. If Dir is empty it is the abstract
	// namespace on Linux, and elsewhere a folder of this user in [os.TempDir].
	// macOS empties that from time to time, so set Dir there.
	Dir string

	// Files are sockets that a parent passed to this process, as systemd does.
	// They are used before a new socket is opened, if they have the address and
	// type that package net would give it. Start takes copies. A socket from Files
	// is passed on to the next process. It is never hidden by Drain, because the
	// parent keeps its queue.
	Files []*os.File

	// Control sets further options on sockets that are opened, before the bind. It
	// runs after those of reuse.Config and may be nil. A passed socket keeps the
	// options that it has. With Control, ListenPacket refuses port 0 together with an
	// option that shares on Linux, as reuse.Config.ListenConfig does.
	Control func(network, address string, c syscall.RawConn) error
}

// Start connects to the running process of this Name, if there is one, and receives
// its sockets. A process that is already about to succeed it is waited for. ctx
// bounds the call, not the Process.
//
// Start fails if another user holds the Name's socket, if the running process is of
// another network namespace, or does not answer for 10 seconds. The error names it
// and wraps ctx's error if that ended the wait, or [os.ErrDeadlineExceeded]. The
// running process serves on.
func (c Config) Start(ctx context.Context) (*Process, error) {
	p := &Process{
		config:   c,
		id:       newID(),
		calls:    make(chan func()),
		ended:    make(chan struct{}),
		done:     make(chan struct{}),
		replaced: make(chan struct{}),
		turn:     make(chan struct{}, 1),
		changed:  make(chan struct{}),
	}
	err := c.check()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		p.files, err = adoptFiles(c.Files)
	}
	if err == nil && c.Name != "" {
		var m *meeting
		if m, err = c.meet(ctx, p.id); err == nil {
			p.join(m)
		}
	}
	if err != nil {
		closeSockets(p.files)
		return nil, fmt.Errorf("handover: start %q: %w", c.Name, err)
	}
	go p.own()
	return p, nil
}

func (c Config) check() error {
	if c.Name == "" {
		return nil
	}
	if len(c.Name) > 64 || strings.ContainsAny(c.Name, "/\x00") || c.Name == "." || c.Name == ".." {
		return fmt.Errorf(`%w: a Name has 1 to 64 bytes without "/" and NUL, and is not "." or ".."`, os.ErrInvalid)
	}
	return nil
}

// Listen returns the next socket of this network and address that was passed, or
// opens one with c's options as [reuse.Config.Listen] does. The listener is
// a [*net.TCPListener] or [*net.UnixListener]. It accepts at once. Call Listen for
// every address before the first Ready: what was not asked for by then is closed.
//
// Passed sockets are found by network and address as the previous process wrote
// them, without a look-up of names.
//
// File().Fd() and [os/exec.Cmd.ExtraFiles] make a socket blocking for every process
// that holds it, so that Accept and Close hang: use SyscallConn.
//
// The error is a [*net.OpError], as in package net. It wraps a [reuse.OptionError] if
// a passed socket does not have the options, in which case it can be asked for with
// others, and [net.ErrClosed] after Close, Drain or Replaced. With a Name, a Unix
// socket file that refuses connections is removed.
func (p *Process) Listen(ctx context.Context, c reuse.Config, network, address string) (net.Listener, error) {
	s, err := p.open(ctx, c, request{network, address, false})
	if err != nil {
		return nil, err
	}
	return s.listener, nil
}

// ListenPacket is Listen for packet sockets. The result is a [*net.UDPConn] or
// [*net.UnixConn]. Start to read after Ready; then a process that fails before it
// takes no datagram. Process never closes a packet socket: when Replaced is closed,
// the caller stops reading, writes the last answers and closes, without delay: until
// then, datagrams are lost if the successor dies. A passed socket keeps its state, such as
// multicast groups.
func (p *Process) ListenPacket(ctx context.Context, c reuse.Config, network, address string) (net.PacketConn, error) {
	s, err := p.open(ctx, c, request{network, address, true})
	if err != nil {
		return nil, err
	}
	return s.packet, nil
}

// Ready makes the previous process close its listeners, and this one current: from
// now on it can be succeeded. It returns nil at once if there is no previous process,
// if that has died, or after a successful Ready.
//
// Ready fails and changes nothing if the previous process has sockets and this one
// asked for none of them, as then the two are different services. If ctx ends before
// the previous process has agreed, that one serves on, and the error names it and wraps
// ctx's error. Ready may then be called again. After Close, and after a Drain without a
// successful Ready, the error wraps [net.ErrClosed].
func (p *Process) Ready(ctx context.Context) error {
	if err := p.ready(ctx); err != nil {
		return fmt.Errorf("handover: ready %q: %w", p.config.Name, err)
	}
	return nil
}

// Replaced returns a channel that is closed when a successor is current and this
// process has closed its listeners, or Drain has left them to the next process. It is
// never closed for an empty Name.
func (p *Process) Replaced() <-chan struct{} { return p.replaced }

// Predecessor returns the process id of the process whose sockets Start received, and
// 0 if there was none or if it is not visible from here.
func (p *Process) Predecessor() int { return p.predecessor }

// Drain ends this process's part without a successor. It hides the listeners from
// new connections, waits until the caller's Accept loops have emptied their queues,
// and closes them. A handshake that needs longer than 20 ms to finish is reset. If
// a next process holds the sockets already, Drain just closes, and that one becomes
// current. Sockets from Files are closed without waiting, as the parent keeps the
// queue. Packet sockets are left open.
//
// Listeners can be hidden on Linux 5.7 and later (TCP) and where they have a path
// (Unix sockets). Elsewhere connections that arrive during the close are lost, and the
// error wraps [errors.ErrUnsupported]. If ctx ends the wait, the error wraps ctx's. In
// each case everything is closed. Later calls wait for the first.
func (p *Process) Drain(ctx context.Context) error { return p.drain(ctx) }

// Close closes the listeners at once, which resets the connections in their queues if
// no other process holds them. Later calls return nil.
func (p *Process) Close() error {
	_ = p.do(func() { p.over = true }) // an error says that it has ended already
	<-p.done
	return nil
}
