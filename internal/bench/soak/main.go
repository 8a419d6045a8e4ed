//go:build linux

// Soak restarts servers under load that hand their sockets over, and counts the
// requests that get no answer. There must be none.
//
//	cd internal/bench && go run ./soak
//
// Started by root it makes a network namespace of its own, and its servers run as user
// nobody.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/reuse/internal/bench/netns"
)

func main() {
	if text := os.Getenv(serverEnv); text != "" {
		exit(serve(text))
		return
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	exit(err)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	inside, err := netns.Own(ctx)
	exit(err)
	if inside {
		exit(run(ctx, o))
	}
}

// exit ends the process if there is an error.
func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	modes, shapes               []string
	restarts, requests, clients int
	think                       time.Duration
}

const help = `Usage: go run ./soak [flags]

Restarts servers of net/http, and of UDP, under load. Each new process takes the
sockets of the running one by package handover. Counts the requests that get no
answer, on fresh connections, on kept ones and in datagrams. None is sent again.

Modes:
  restarts  a new process replaces the running one
  turns     two processes replace each other, and must not grow
  kills     the old or the new process is killed at a random moment of a restart, or
            the old one is stopped until the new one has given up

Shapes: tcp, unix and udp have one listener, tcp-4 and udp-4 four on one address, and
tcp-workers three Names on one address with two listeners each. The others have 300
clients that are 100 ms away in each direction, and need root.

Flags:
`

func parse(args []string) (o options, err error) {
	allModes, allShapes := []string{"restarts", "turns", "kills"}, []string{}
	for _, s := range shapes {
		allShapes = append(allShapes, s.name)
	}
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), help)
		fs.PrintDefaults()
	}
	chosenModes := fs.String("modes", strings.Join(allModes, ","), "`list` of modes")
	chosenShapes := fs.String("shapes", strings.Join(allShapes, ","), "`list` of shapes")
	fs.IntVar(&o.restarts, "restarts", 50, "`number` of restarts or kills at least, of each shape")
	fs.IntVar(&o.requests, "requests", 50_000, "`number` of fresh connections or datagrams at least, and 3/10 as many on kept ones, in the mode restarts")
	fs.IntVar(&o.clients, "clients", 32, "`number` of clients, of which a quarter keep their connections")
	fs.DurationVar(&o.think, "think", 0, "`time` that a client waits at most before each request, at random; without, what a start costs the busy processors shows in p99")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.modes, o.shapes = strings.Split(*chosenModes, ","), strings.Split(*chosenShapes, ",")
	for _, name := range append(append(fs.Args(), o.modes...), o.shapes...) {
		if !slices.Contains(allModes, name) && !slices.Contains(allShapes, name) {
			return o, fmt.Errorf("there is no mode or shape %q", name)
		}
	}
	if min(o.restarts, o.clients) < 1 {
		return o, errors.New("-restarts and -clients are at least 1")
	}
	return o, nil
}

// run soaks each shape in each mode, also after one that fails.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil { // the servers may be another user's
		return err
	}
	for _, mode := range o.modes {
		for _, sh := range shapes {
			if !slices.Contains(o.shapes, sh.name) || mode != "restarts" && (sh.far || sh.names > 1) {
				continue
			}
			s := &soak{options: o, ctx: ctx, mode: mode, shape: sh, dir: dir}
			if e := s.run(); e != nil {
				err = errors.Join(err, fmt.Errorf("%s %s: %w", mode, sh.name, e))
			}
			fmt.Print(s.report())
		}
	}
	return err
}
