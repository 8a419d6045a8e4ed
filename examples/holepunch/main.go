//go:build !android && !ios

// Holepunch dials from the port that it listens on, as peers do that meet through a NAT:
// the NAT admits what comes to a port that has sent something.
//
// Both peers are in this process, so that the output has an order. It is the same between
// two processes of one user, or two machines.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/holepunch

Two peers listen on a port each, and one dials the other from the port that it
listens on. Then come two mistakes, dialing twice and dialing oneself, and
their errors. It runs on Linux, macOS, the BSDs, AIX and Solaris. Elsewhere
listen on one port, dial from another, and tell the peer both.

Exit status: 0 if the output is as described, 2 if not.
`

// share is for the listener and for the socket that dials from its port. The SO_REUSEADDR
// that package net sets on the listener is not enough.
var share = reuse.Config{Port: reuse.On}

func main() { term.Main(help, 0, run) }

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := share.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := share.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer b.Close()
	term.Say("A listens on %v, B on %v, both with %v.", a.Addr(), b.Addr(), share)

	term.Say("")
	term.Say("A dials B from the port that A listens on.")
	dialed, err := share.Dial(ctx, "tcp4", a.Addr().String(), b.Addr().String())
	if err != nil {
		return err
	}
	defer dialed.Close()
	accepted, err := b.Accept()
	if err != nil {
		return err
	}
	defer accepted.Close()
	term.Say("  A sees %v, where B listens.", dialed.RemoteAddr())
	term.Say("  B sees %v, where A listens.", accepted.RemoteAddr())
	if _, err := fmt.Fprintln(dialed, "hello"); err != nil {
		return err
	}
	word := ""
	if _, err := fmt.Fscan(accepted, &word); err != nil {
		return err
	}
	term.Say("  A writes, and B reads %q.", word)

	// Peers that know of each other dial at about the same time. Between two addresses
	// there can be one connection only, so a peer accepts while it dials, and uses what it
	// gets first. The error is reuse.ErrTupleInUse. If both are quick enough, TCP makes one
	// connection of the two dials.
	term.Say("")
	term.Say("B dials A, from the port that B listens on.")
	if err := expect(share.Dial(ctx, "tcp4", b.Addr().String(), a.Addr().String())); err != nil {
		return err
	}
	term.Say("  So B uses the connection that it has accepted.")

	// A list of peers often contains the own address. TCP can connect a socket to itself,
	// which is reuse.ErrSelfDial.
	term.Say("")
	term.Say("A dials itself, from the port that A listens on.")
	if err := expect(share.Dial(ctx, "tcp4", a.Addr().String(), a.Addr().String())); err != nil {
		return err
	}
	term.Say("  So A removes its own address from its list of peers.")
	return nil
}

// expect prints the error of a dial that has to fail.
func expect(conn net.Conn, err error) error {
	if err == nil {
		return errors.Join(errors.New("the dial succeeded"), conn.Close())
	}
	term.Say("  It fails: %v", err)
	return nil
}
