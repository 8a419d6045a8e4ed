//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Restart restarts a web server under load. Each version takes the port over from
// the one before it, which finishes what it has and goes. The program counts the
// connections that were answered and those that were lost. It also shows what is
// lost without that.
//
// The server is in server.go, its clients are in load.go, the restarts in show.go.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"
)

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "restart: %v\nFor help: go run ./examples/restart -h\n", err)
		os.Exit(2)
	}
	if version, notServer := strconv.Atoi(os.Getenv(versionEnv)); notServer == nil {
		err = serve(version, o)
	} else {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "restart: %v\n", err)
		os.Exit(1)
	}
}

// A mode is how one version follows the other.
type mode string

const (
	handover mode = "handover" // the new one takes over, the old one drains and stops
	naive    mode = "naive"    // the new one listens, the old one stops
	gap      mode = "gap"      // the old one stops, the new one listens
)

// lesser is what a system can do that cannot do a mode.
var lesser = map[mode]mode{handover: naive, naive: gap}

type options struct {
	address   string
	network   string
	mode      mode
	restarts  int
	listeners int
	clients   int
	keepAlive int
	rate      int
	duration  time.Duration
	json      bool
}

// total is how long all versions serve.
func (o options) total() time.Duration { return time.Duration(o.restarts+1) * o.duration }

// interval is the time from one request of a client to its next.
func (o options) interval() time.Duration {
	return time.Duration(o.clients) * time.Second / time.Duration(o.rate)
}

const help = `Usage: go run ./examples/restart [flags]

Restarts a web server several times while clients use it, and counts the
connections that were answered and lost. Each version is a process of its own and
listens on the same port as the one before it. A connection is new, has one
request, and is lost if that got no complete answer; nothing is tried again.
Clients that keep their connections are counted apart.

Modes:
  handover  the new version takes over, then the old one drains and stops:
            nothing is lost. The exit status is 1 if something is.
  naive     the new version listens, then the old one stops. Both share the port,
            but what the old one had in its queue is lost.
  gap       the old version stops, then the new one listens, with one listener.

Package group hands over on Linux, FreeBSD 14, OpenBSD and NetBSD, and on macOS for
the address that is the default here. Elsewhere the mode is naive, or gap where processes cannot share a port (Windows,
illumos, Plan 9). Systems without processes (js, wasip1) cannot run this.

Flags:
`

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("restart", flag.ContinueOnError)
	fs.StringVar(&o.address, "address", "", "loopback `address` and port to listen on; port 0 is any (default 127.0.0.1:0 or [::1]:0)")
	fs.StringVar(&o.network, "network", "tcp4", "`network`: tcp4 or tcp6")
	fs.StringVar((*string)(&o.mode), "mode", string(handover), "`mode`: handover, naive or gap")
	fs.IntVar(&o.restarts, "restarts", 5, "`number` of restarts, 1 to 50")
	fs.IntVar(&o.listeners, "listeners", 2, "`number` of listeners of each version, 1 to 64")
	fs.IntVar(&o.clients, "clients", 32, "`number` of clients with a new connection each time, 1 to 1000")
	fs.IntVar(&o.keepAlive, "keepalive", 2, "`number` of clients that keep their connections, 0 to 1000")
	fs.IntVar(&o.rate, "rate", 4000, "new `connections` a second of all clients together, up to 20000")
	fs.DurationVar(&o.duration, "duration", 1200*time.Millisecond, "`time` that each version serves, 10ms to 1m")
	fs.BoolVar(&o.json, "json", false, "print the result as JSON, and the rest to standard error")
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print(help)
			fs.SetOutput(os.Stdout)
			fs.PrintDefaults()
		}
		return o, err
	}
	example := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[o.network]
	if o.address == "" {
		o.address = example
	}
	address, err := netip.ParseAddrPort(o.address)
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: there are only flags", fs.Arg(0))
	case example == "":
		return o, fmt.Errorf("-network %q: give tcp4 or tcp6", o.network)
	case o.mode != handover && o.mode != naive && o.mode != gap:
		return o, fmt.Errorf("-mode %q: give handover, naive or gap", o.mode)
	case err != nil || !address.Addr().IsLoopback() || address.Addr().Is4() != (o.network == "tcp4"):
		return o, fmt.Errorf("-address %q: give a loopback address of %s and a port, such as %s", o.address, o.network, example)
	case o.restarts < 1 || o.restarts > 50:
		return o, fmt.Errorf("-restarts %d: give a number from 1 to 50", o.restarts)
	case o.listeners < 1 || o.listeners > 64:
		return o, fmt.Errorf("-listeners %d: give a number from 1 to 64", o.listeners)
	case o.clients < 1 || o.clients > 1000:
		return o, fmt.Errorf("-clients %d: give a number from 1 to 1000", o.clients)
	case o.keepAlive < 0 || o.keepAlive > 1000:
		return o, fmt.Errorf("-keepalive %d: give a number from 0 to 1000", o.keepAlive)
	case o.rate < o.clients || o.rate > 20000:
		return o, fmt.Errorf("-rate %d: give a number from %d, one for each client, to 20000", o.rate, o.clients)
	case o.duration < 10*time.Millisecond || o.duration > time.Minute:
		return o, fmt.Errorf("-duration %v: give a time from 10ms to 1m", o.duration)
	}
	return o, nil
}
