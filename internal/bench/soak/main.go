// Soak hands a TCP port from one server process to the next, hundreds of times
// under load, and counts the connections that were not answered. There must be
// none. Then it does the same with servers that just close, to show what the
// hand-over is good for.
//
//	cd internal/bench && go run ./soak
//
// Started by root on Linux it makes a network namespace of its own and becomes
// user nobody.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/reuse/internal/term"
)

func main() {
	if os.Getenv(serverEnv) != "" {
		exit(serve(os.Args[1:]))
		return
	}
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "soak: %v\nFor help: go run ./soak -h\n", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if inside, err := asNobody(ctx); err != nil || !inside {
		exit(err)
		return
	}
	exit(run(ctx, o))
}

// exit ends the process if there is an error.
func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(1)
	}
}

// A shape is how the servers listen, one generation after the other.
type shape struct {
	name   string
	sizes  []int // the number of listeners: of each generation in turn
	split  bool  // each in a process of its own
	plain  bool  // the old side is one plain listener each time
	inside bool  // all in one process, which hands over to itself
}

var shapes = []shape{
	{name: "1", sizes: []int{1}},
	{name: "2", sizes: []int{2}},
	{name: "4", sizes: []int{4}},
	{name: "changing", sizes: []int{2, 4, 1, 4, 2, 1}},
	{name: "workers", sizes: []int{3, 2}, split: true},
	{name: "plain", sizes: []int{1, 2, 4}, plain: true},
	{name: "inside", sizes: []int{1, 2, 4}, inside: true},
}

// addresses to listen on, for each network. That of tcp is both families' wildcard.
var addresses = map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": ":0"}

func run(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done after %v (-limit)", o.limit))
	defer cancel()
	screen := term.New(os.Stdout)
	screen.Printf("%s, %s; %s\n", term.Count(o.clients, "client"), o.pace(), system())

	sum, err := o.mode(ctx, screen, "hand-over", true, o.connections, o.restarts)
	if err == nil && o.naive > 0 {
		var naive result
		naive, err = o.mode(ctx, screen, "naive: the old servers close", false, o.naive, max(o.restarts*o.naive/o.connections, 10))
		if err == nil {
			screen.Printf("\nhand-over lost %s, naive %s\n", sum.share(), naive.share())
		}
	}
	if o.ratio > 0 && sum.ratio() > o.ratio {
		err = errors.Join(err, fmt.Errorf("99%% of the answers took %.2f times as long during a hand-over as in quiet", sum.ratio()))
	}
	if sum.lost > 0 {
		err = errors.Join(err, fmt.Errorf("%s lost in the hand-over", term.Count(sum.lost, "connection")))
	}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause)
	}
	return errors.Join(err, screen.Err())
}

// share says how many of how many were lost.
func (r result) share() string {
	return fmt.Sprintf("%s of %s over %s", term.Number(r.lost), term.Count(r.sent, "connection"), term.Count(r.restarts, "restart"))
}

// add adds up configurations.
func (r *result) add(other result) {
	r.sent += other.sent
	r.lost += other.lost
	r.restarts += other.restarts
	r.takeOver = append(r.takeOver, other.takeOver...)
	r.drain = append(r.drain, other.drain...)
	for p := range r.latency {
		r.latency[p] = append(r.latency[p], other.latency[p]...)
	}
}

// mode soaks every configuration and prints a line of each. It returns an error
// if a soak did not come to its end, or its counts do not add up.
func (o options) mode(ctx context.Context, screen *term.Screen, title string, handover bool, connections, restarts int) (sum result, err error) {
	screen.Printf("\n%s\n", title)
	screen.Printf("%s\n", header)
	configurations := len(o.networks) * len(o.shapes)
	for _, network := range o.networks {
		for _, shape := range o.shapes {
			s := &soak{
				options: o, screen: screen, handover: handover,
				network: network, shape: shape,
				connections: (connections + configurations - 1) / configurations,
				restarts:    (restarts + configurations - 1) / configurations,
			}
			r, err := s.run(ctx)
			screen.Draw()
			sum.add(r)
			if r.sent > 0 {
				screen.Printf("%s\n", r.line(network, shape.name))
			}
			if used := growth(r.used); used != "" {
				screen.Printf("      %s\n", used)
			}
			for _, l := range r.losses {
				screen.Printf("      %s\n", l)
			}
			if err != nil {
				return sum, fmt.Errorf("%s, %s: %w", network, shape.name, err)
			}
		}
	}
	screen.Printf("%s\n", sum.line("total", ""))
	return sum, nil
}

const header = `                                               milliseconds
                                               take over    drain        quiet        starting     hand-over
network listeners restarts connections   lost   med   max    med   max    p50   p99    p50   p99    p50   p99   p99/quiet`

// line is a row of the table. Starting is while a process starts, which does not
// listen yet; hand-over is from then until the old process has ended.
func (r result) line(network, listeners string) string {
	line := fmt.Sprintf("%-7s %-9s %8d %11s %6s", network, listeners, r.restarts, term.Number(r.sent), term.Number(r.lost))
	two := func(list []time.Duration, p, q float64) {
		ms := float64(time.Millisecond)
		line += fmt.Sprintf(" %5.1f %5.1f ", float64(quantile(list, p))/ms, float64(quantile(list, q))/ms)
	}
	two(r.takeOver, 0.5, 1)
	two(r.drain, 0.5, 1)
	for _, p := range []phase{quiet, starting, handing} {
		two(r.latency[p], 0.5, 0.99)
	}
	return line + fmt.Sprintf("%9.2f", r.ratio())
}

// ratio compares the p99 during a hand-over with that in quiet.
func (r result) ratio() float64 {
	q := quantile(r.latency[quiet], 0.99)
	if q == 0 {
		return 0
	}
	return float64(quantile(r.latency[handing], 0.99)) / float64(q)
}

// quantile returns the q-th part of a list, which it sorts; 0 if that is empty.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(int(q*float64(len(list))), len(list)-1)]
}

type options struct {
	connections int
	restarts    int
	naive       int
	clients     int
	rate        int
	ratio       float64
	every       time.Duration
	limit       time.Duration
	networks    []string
	shapes      []shape
}

func (o options) pace() string {
	if o.rate == 0 {
		return "each as fast as it can"
	}
	return term.Number(o.rate) + " connections a second in all"
}

const help = `Usage: go run ./soak [flags]

Hands a TCP port from one server process to the next under load and counts the
connections that were lost: those that the client could not make, or that had no
complete answer. Each has one request, and none is tried again.

Listeners is 1, 2 or 4 to a server, changing from one server to the next; workers:
three processes with one listener each are replaced by two, and those by three;
plain: the old server has one plain listener (Multipath TCP, as package net has it),
drained with group.DrainListener, and the load rests while such a one is put back;
or inside: one process hands over to itself again and again, and how many goroutines,
descriptors and bytes it uses is printed.

Flags:
`

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.IntVar(&o.connections, "connections", 1_000_000, "`number` of connections at least, of all configurations together")
	fs.IntVar(&o.restarts, "restarts", 200, "`number` of restarts at least, of all configurations together")
	fs.IntVar(&o.naive, "naive", 100_000, "`number` of connections in naive mode; 0 leaves that out")
	fs.IntVar(&o.clients, "clients", 32, "`number` of clients")
	fs.IntVar(&o.rate, "rate", 0, "`connections` a second of all clients together; 0 is as many as can be")
	fs.Float64Var(&o.ratio, "ratio", 0, "fail if p99/quiet of all is more than this `number`; 0 does not. A busy machine adds to it")
	fs.DurationVar(&o.every, "every", 300*time.Millisecond, "`time` from one restart to the next")
	fs.DurationVar(&o.limit, "limit", 15*time.Minute, "`time` for all")
	networks := fs.String("networks", "tcp4,tcp6,tcp", "`list` of networks; tcp is the wildcard of both families")
	names := fs.String("listeners", "1,2,4,changing,workers,plain,inside", "`list` of configurations")
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print(help)
			fs.SetOutput(os.Stdout)
			fs.PrintDefaults()
		}
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: there are only flags", fs.Arg(0))
	case o.connections < 1 || o.connections > 100_000_000:
		return o, fmt.Errorf("-connections %d: give a number from 1 to 100000000", o.connections)
	case o.restarts < 1 || o.restarts > 100_000:
		return o, fmt.Errorf("-restarts %d: give a number from 1 to 100000", o.restarts)
	case o.naive < 0 || o.naive > o.connections:
		return o, fmt.Errorf("-naive %d: give a number from 0 to that of -connections", o.naive)
	case o.clients < 1 || o.clients > 1000:
		return o, fmt.Errorf("-clients %d: give a number from 1 to 1000", o.clients)
	case o.rate != 0 && o.rate < o.clients || o.rate > 1_000_000:
		return o, fmt.Errorf("-rate %d: give 0, or a number from %d, one for each client, to 1000000", o.rate, o.clients)
	case o.ratio < 0:
		return o, fmt.Errorf("-ratio %v: give a number from 0", o.ratio)
	case o.every < 10*time.Millisecond || o.every > time.Minute:
		return o, fmt.Errorf("-every %v: give a time from 10ms to 1m", o.every)
	case o.limit <= 0:
		return o, fmt.Errorf("-limit %v: give a positive time", o.limit)
	}
	for network := range strings.SplitSeq(*networks, ",") {
		if addresses[network] == "" {
			return o, fmt.Errorf("-networks: there is no %q, only tcp4, tcp6 and tcp", network)
		}
		o.networks = append(o.networks, network)
	}
	for name := range strings.SplitSeq(*names, ",") {
		i := slices.IndexFunc(shapes, func(s shape) bool { return s.name == name })
		if i < 0 {
			return o, fmt.Errorf("-listeners: there is no %q, only 1, 2, 4, changing, workers, plain and inside", name)
		}
		o.shapes = append(o.shapes, shapes[i])
	}
	return o, nil
}
