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
	"flag"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"example.com/reuse/internal/term"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout)
	if err == nil {
		if version, notServer := strconv.Atoi(os.Getenv(versionEnv)); notServer == nil {
			err = serve(version, o)
		} else {
			err = showRestarts(o, stdout, stderr)
		}
	}
	return term.Exit("restart", err, stderr)
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
connections that were answered and lost. Each version is a process of its own
and listens on the same port as the one before it. A connection is new, has
one request, and is lost if that got no complete answer; nothing is tried
again. Clients that keep their connections are counted apart.

Modes:
  handover  the new version takes over, then the old one drains and stops:
            nothing is lost
  naive     the new version listens, then the old one stops. Both share the
            port, but what the old one had in its queue is lost.
  gap       the old version stops, then the new one listens, with one listener

Systems: package group hands over on Linux, FreeBSD 14, OpenBSD and NetBSD,
and on macOS for the address that is the default here. Elsewhere the mode is
naive, or gap where processes cannot share a port (Windows, illumos, Plan 9).
Systems without processes (js, wasip1) cannot run this.

Exit status: 0 if all is well, whatever is lost in the modes naive and gap
  1    if a hand-over lost something
  2    if this could not be done
  130  if it was interrupted; what was counted until then is told
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/restart
  go run ./examples/restart -mode naive
  go run ./examples/restart -restarts 20 -listeners 4 -json
`

func parse(args []string, stdout io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("restart", flag.ContinueOnError)
	fs.StringVar(&o.address, "address", "", "loopback `address` and port; port 0, the default, is any")
	fs.StringVar(&o.network, "network", "tcp4", "`network`: tcp4 or tcp6")
	fs.StringVar((*string)(&o.mode), "mode", string(handover), "`mode`: handover, naive or gap")
	fs.IntVar(&o.restarts, "restarts", 5, "`number` of restarts, 1 to 50")
	fs.IntVar(&o.listeners, "listeners", 2, "`number` of listeners of each version, 1 to 64")
	fs.IntVar(&o.clients, "clients", 32, "`number` of clients with new connections, 1 to 1000")
	fs.IntVar(&o.keepAlive, "keepalive", 2, "`number` of clients that keep theirs, 0 to 1000")
	fs.IntVar(&o.rate, "rate", 4000, "new `connections` a second in all, up to 20000")
	fs.DurationVar(&o.duration, "duration", 1200*time.Millisecond, "`time` that each version serves, 10ms to 1m")
	fs.BoolVar(&o.json, "json", false, "print the result as JSON, and the rest to standard error")
	if err := term.Parse(fs, help, args, stdout); err != nil {
		return o, err
	}
	example := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[o.network]
	if o.address == "" {
		o.address = example
	}
	address, err := netip.ParseAddrPort(o.address)
	switch {
	case fs.NArg() > 0:
		return o, term.Mistake("unexpected argument %q: there are only flags", fs.Arg(0))
	case example == "":
		return o, term.Mistake("-network %q: give tcp4 or tcp6", o.network)
	case o.mode != handover && o.mode != naive && o.mode != gap:
		return o, term.Mistake("-mode %q: give handover, naive or gap", o.mode)
	case err != nil || !address.Addr().IsLoopback() || address.Addr().Is4() != (o.network == "tcp4"):
		return o, term.Mistake("-address %q: give a loopback address of %s and a port, such as %s", o.address, o.network, example)
	case o.restarts < 1 || o.restarts > 50:
		return o, term.Mistake("-restarts %d: give a number from 1 to 50", o.restarts)
	case o.listeners < 1 || o.listeners > 64:
		return o, term.Mistake("-listeners %d: give a number from 1 to 64", o.listeners)
	case o.clients < 1 || o.clients > 1000:
		return o, term.Mistake("-clients %d: give a number from 1 to 1000", o.clients)
	case o.keepAlive < 0 || o.keepAlive > 1000:
		return o, term.Mistake("-keepalive %d: give a number from 0 to 1000", o.keepAlive)
	case o.rate < o.clients || o.rate > 20000:
		return o, term.Mistake("-rate %d: give a number from %d, one for each client, to 20000", o.rate, o.clients)
	case o.duration < 10*time.Millisecond || o.duration > time.Minute:
		return o, term.Mistake("-duration %v: give a time from 10ms to 1m", o.duration)
	}
	return o, nil
}
