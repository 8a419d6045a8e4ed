//go:build !android && !ios

// Exclusive holds a port, and another process tries to take it: with every option that
// shares ports, on the same address and on the wildcards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/exclusive [-address host:port]

Holds a port with Config{Exclusive: On}. Another process tries to take it with
each option that shares ports, on the same address and on the wildcards. What
may bind alongside the holder must get none of its connections. Then it does
the same to a listener that is not exclusive. The error says where an address
cannot be exclusive, as 0.0.0.0 on Linux.

Exit status: 0 if nothing took the address or its traffic, 1 if something did,
2 if this could not be done.

`

const (
	connections = 16              // are made to see who gets the traffic of an address
	patience    = 5 * time.Second // for one of them
)

// serve listens, and answers every connection with a name until ctx ends.
func serve(ctx context.Context, name string, c reuse.Config, address string) (net.Listener, error) {
	network := "tcp"
	if strings.HasPrefix(address, "0.0.0.0:") {
		network = "tcp4" // for "tcp" package net makes it a dual-stack wildcard
	}
	l, err := c.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			fmt.Fprintln(conn, name)         // if this fails, the client reports it
			_, _ = io.Copy(io.Discard, conn) // the client closes first: TIME_WAIT is on its port
			conn.Close()
		}
	}()
	return l, nil
}

// ask returns the name of what answers at an address.
func ask(address string) (name string, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // fails on a closed one
	_, err = fmt.Fscan(conn, &name)
	return name, err
}

// An attempt is what the other process does to take an address.
type attempt struct {
	Config  reuse.Config
	Address string
}

const bound = "bound"

// run prints what becomes of the attempt, and keeps the address until ctx ends.
func (a attempt) run(ctx context.Context) error {
	text := bound
	if _, err := serve(ctx, "intruder", a.Config, a.Address); errors.Is(err, errors.ErrUnsupported) {
		text = "no such option here"
	} else if err != nil {
		text = term.Reason(err)
	}
	fmt.Println(text)
	<-ctx.Done()
	return nil
}

func main() {
	term.Child(func(ctx context.Context, a attempt) error { return a.run(ctx) })
	address := flag.String("address", "127.0.0.1:0", "`address` to hold; port 0 is any free one")
	term.Main(help, 0, func() error {
		taken, err := attack(reuse.Config{Exclusive: reuse.On}, *address)
		if err != nil {
			return err
		}
		host, _, _ := net.SplitHostPort(*address) // Listen has checked it
		term.Say("")
		if _, err := attack(reuse.Config{Addr: reuse.On, Port: reuse.Prefer}, net.JoinHostPort(host, "0")); err != nil || taken == 0 {
			return err
		}
		return term.No("the address was not exclusive: it was taken %d times", taken)
	})
}

// sharing is what the other process sets. Package net sets Addr by itself, except on Windows.
var sharing = map[string]reuse.Config{
	"-":         {Addr: reuse.Off},
	"Addr":      {Addr: reuse.On},
	"Addr+Port": {Addr: reuse.On, Port: reuse.On},
	"Port":      {Addr: reuse.Off, Port: reuse.On},
	"PortLB":    {Addr: reuse.Off, PortLB: reuse.On},
}

// attack holds an address, and returns how many attempts took it or its traffic.
func attack(c reuse.Config, address string) (taken int, err error) {
	ctx, release := context.WithCancel(context.Background())
	defer release()
	l, err := serve(ctx, "holder", c, address)
	if err != nil {
		return 0, err
	}
	term.Say("%v is held with %v. Another process tries to take it:", l.Addr(), c)
	holder := l.Addr().(*net.TCPAddr).AddrPort()
	holder = netip.AddrPortFrom(holder.Addr().Unmap(), holder.Port())
	table := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	for _, ip := range targets(holder.Addr()) {
		to := netip.AddrPortFrom(ip.bind, holder.Port())
		fmt.Fprintf(table, "%v\n", to)
		for _, options := range slices.Sorted(maps.Keys(sharing)) {
			p, err := term.Start(attempt{sharing[options], to.String()})
			if err != nil {
				return taken, err
			}
			result, got := p.Line, 0
			for i := 0; i < connections && p.Line == bound; i++ {
				name, err := ask(netip.AddrPortFrom(ip.dial, holder.Port()).String())
				if err != nil {
					return taken, err
				}
				if name == "holder" {
					got++
				}
			}
			if p.Line == bound {
				if to == holder || got < connections {
					taken++
					result = "TOOK IT"
				}
				result += fmt.Sprintf("; holder got %d/%d", got, connections)
			}
			fmt.Fprintf(table, "  %s\t%s\n", options, result)
			if err := p.Stop(); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// A target is where to bind, and an address of the holder whose traffic that could take.
type target struct{ bind, dial netip.Addr }

func targets(holder netip.Addr) []target {
	any4, any6, loopback4 := netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1")
	switch holder {
	case any4:
		return []target{{any4, loopback4}, {any6, loopback4}, {loopback4, loopback4}}
	case any6:
		return []target{{any6, loopback4}, {any4, loopback4}, {loopback4, loopback4}, {netip.IPv6Loopback(), netip.IPv6Loopback()}}
	}
	return []target{{holder, holder}, {any4, holder}, {any6, holder}}
}
