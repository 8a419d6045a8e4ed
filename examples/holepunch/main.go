//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Holepunch dials from the port that it listens on, as peers do that meet through
// a NAT: the NAT keeps a hole open for a port that has sent something, and lets
// in through it who knows the address.
//
// Both peers are in this process, so that one can read what happens in order. It
// is the same between two processes of one user, or two machines.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/holepunch

Two peers listen on a port each, and one dials the other from the port that it
listens on, as peer-to-peer programs do behind a NAT: both see the address
where the other listens. Then come two mistakes that are easily made, dialing
twice and dialing oneself, and their errors.

Systems: where several sockets can share a port: Linux, macOS, FreeBSD,
OpenBSD, NetBSD, DragonFly, AIX, Solaris. Not on Windows, illumos, Plan 9, js
and wasip1.

Exit status: 0 if all went as it is said here
  2    if it did not, or could not be done
  130  if it was interrupted
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/holepunch
`

// share is for the listener and for the socket that dials from its port. Both
// must have it. SO_REUSEADDR, which package net sets on the listener, is not
// enough for two sockets on one port.
var share = reuse.Config{Port: reuse.On}

// patience is for the whole program, which takes no time on one machine.
const patience = 10 * time.Second

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	return term.Exit("holepunch", holepunch(args, stdout), stderr)
}

func holepunch(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("holepunch", flag.ContinueOnError)
	if err := term.Parse(flags, help, args, stdout); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return term.Mistake("unexpected argument %q: there are no arguments", flags.Arg(0))
	}
	s := term.New(stdout)
	err := show(s)
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w (on this system, listen on one port, dial from another, and tell the peer both)", err)
	}
	return errors.Join(err, s.Err())
}

func show(s *term.Screen) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	a, err := listen(ctx, "A")
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := listen(ctx, "B")
	if err != nil {
		return err
	}
	defer b.Close()
	s.Textf("A listens on %v with %v.", a.Addr(), share)
	s.Textf("B listens on %v with %v.", b.Addr(), share)

	s.Printf("\n")
	s.Textf("A dials B from the port that A listens on.")
	dialed, err := a.dial(ctx, b.Addr())
	if err != nil {
		return err
	}
	defer dialed.Close()
	accepted, err := b.Accept()
	if err != nil {
		return err
	}
	defer accepted.Close()
	if err := meet(s, "A", dialed, b.Addr()); err != nil {
		return err
	}
	if err := meet(s, "B", accepted, a.Addr()); err != nil {
		return err
	}
	if err := greet(s, "A", dialed, "B", accepted); err != nil {
		return err
	}

	// Peers that know of each other dial at about the same time. Between two
	// addresses there can be one connection only, so the second dial fails, on
	// the side where the first has arrived. A peer therefore accepts while it
	// dials, and takes what it gets first. (If both are quick enough, TCP makes
	// one connection of the two dials, and both succeed.)
	s.Printf("\n")
	s.Textf("B dials A, too, from the port that B listens on.")
	conn, err := b.dial(ctx, a.Addr())
	if err := expect(s, conn, err, reuse.ErrTupleInUse, "reuse.ErrTupleInUse"); err != nil {
		return err
	}
	s.Indentf("  ", "So B uses the connection that it has accepted.")
	if err := greet(s, "B", accepted, "A", dialed); err != nil {
		return err
	}

	// A list of peers often has the own address in it. TCP can connect a socket
	// to itself, and what is written to it comes back.
	s.Printf("\n")
	s.Textf("A dials itself, from the port that A listens on.")
	conn, err = a.dial(ctx, a.Addr())
	if err := expect(s, conn, err, reuse.ErrSelfDial, "reuse.ErrSelfDial"); err != nil {
		return err
	}
	s.Indentf("  ", "So A strikes its own address off its list of peers.")

	s.Printf("\n")
	s.Textf("Both listen as before, for anybody.")
	for _, p := range []*peer{a, b} {
		if err := visit(ctx, s, p); err != nil {
			return err
		}
	}
	return nil
}

// A peer listens on a port and dials from it.
type peer struct {
	name string
	net.Listener
}

func listen(ctx context.Context, name string) (*peer, error) {
	// A specific address: one that a peer can be told, and that can be dialed
	// from. With a wildcard one would have to find out the own address first.
	l, err := share.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if t, ok := l.(*net.TCPListener); ok {
		deadline, _ := ctx.Deadline()
		err = t.SetDeadline(deadline)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &peer{name, l}, nil
}

// dial connects from the port that the peer listens on.
func (p *peer) dial(ctx context.Context, to net.Addr) (net.Conn, error) {
	conn, err := share.Dial(ctx, "tcp4", p.Addr().String(), to.String())
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// meet tells whom a peer sees at the other end.
func meet(s *term.Screen, name string, conn net.Conn, listens net.Addr) error {
	if conn.RemoteAddr().String() != listens.String() {
		return fmt.Errorf("%s sees %v, and the other listens on %v", name, conn.RemoteAddr(), listens)
	}
	s.Indentf("  ", "%s sees %v, where the other listens.", name, conn.RemoteAddr())
	return nil
}

// greet sends a line from one end of a connection to the other.
func greet(s *term.Screen, from string, out net.Conn, to string, in net.Conn) error {
	if _, err := fmt.Fprintf(out, "hello from %s\n", from); err != nil {
		return err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s got no greeting: %w", to, err)
	}
	s.Indentf("  ", "%s reads %q.", to, strings.TrimSpace(line))
	return nil
}

// expect prints the error of a dial that has to fail. A kernel may refuse it in
// its own way, too; then its errno is all there is.
func expect(s *term.Screen, conn net.Conn, err, want error, name string) error {
	if err == nil {
		conn.Close()
		return fmt.Errorf("no %s: the dial succeeded", name)
	}
	var sys *os.SyscallError
	kernel := errors.As(err, &sys)
	if !kernel && !errors.Is(err, want) {
		return fmt.Errorf("no %s: %w", name, err)
	}
	if errors.Is(err, want) {
		s.Indentf("  ", "It fails with %s:", name)
		s.Indentf("    ", "%v", want)
	}
	if kernel {
		s.Indentf("  ", "The kernel said:")
		s.Indentf("    ", "%v", sys)
	}
	return nil
}

// visit connects to a peer like a stranger, from any port.
func visit(ctx context.Context, s *term.Screen, p *peer) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", p.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	in, err := p.Accept()
	if err != nil {
		return err
	}
	defer in.Close()
	if in.RemoteAddr().String() != conn.LocalAddr().String() {
		return fmt.Errorf("%s accepted %v instead of %v", p.name, in.RemoteAddr(), conn.LocalAddr())
	}
	s.Indentf("  ", "%s accepts %v.", p.name, in.RemoteAddr())
	return nil
}
