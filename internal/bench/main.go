//go:build linux

// Bench measures this library side by side with package net and with other
// libraries that share ports, and writes docs/benchmarks.md.
//
//	cd internal/bench && go run .
//
// Whatever is compared takes turns, so that what else the machine does meets all
// alike, and is compared turn by turn: a figure is the median of those ratios, with
// the bounds that it has with 95% confidence (golang.org/x/perf/benchmath).
//
// Started by root it makes a network namespace of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/reuse/internal/bench/netns"
	"example.com/reuse/internal/term"
)

func main() {
	if kind := os.Getenv(serverEnv); kind != "" {
		exit(serve(kind, os.Args[1:]))
		return
	}
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\nFor help: go run . -h\n", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if inside, err := netns.Own(ctx); err != nil || !inside {
		exit(err)
		return
	}
	exit(run(ctx, o))
}

// exit ends the process if there is an error.
func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run measures everything, prints the page and writes it.
func run(ctx context.Context, o options) error {
	var r results
	var err error
	if r.machine, err = thisMachine(); err != nil {
		return err
	}
	screen := term.New(os.Stderr)
	for _, step := range []struct {
		name string
		do   func(context.Context, options) error
	}{
		{"what each library sets", r.describe},
		{"listen, dial and close", r.measureCalls},
		{"hand-over", r.measureHandOver},
	} {
		screen.Draw(step.name + " ...")
		if err := step.do(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	screen.Draw()
	text := r.page()
	if _, err := fmt.Print(text); err != nil {
		return err
	}
	if o.docs == "" {
		return nil
	}
	return write(o.docs, text, r.chart())
}

type options struct {
	rounds   int
	restarts int
	every    time.Duration
	docs     string
}

const help = `Usage: go run . [flags]

Measures Listen, ListenPacket, Dial and the hand-over of this library, of
package net and of other libraries in turns, prints what came of it, and writes it to
benchmarks.md and benchmarks.svg. For Linux. It takes some minutes; a busy machine
spoils the figures, and how busy it was is part of them.

Flags:
`

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.IntVar(&o.rounds, "rounds", 1000, "`number` of turns of each call, with 50 calls a turn")
	fs.IntVar(&o.restarts, "restarts", 60, "`number` of restarts of each kind")
	fs.DurationVar(&o.every, "every", 250*time.Millisecond, "`time` from one restart to the next")
	fs.StringVar(&o.docs, "docs", "../../docs", "`folder` whose benchmarks.md and benchmarks.svg are written; empty: none")
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print(help)
			fs.SetOutput(os.Stdout)
			fs.PrintDefaults()
		}
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: there are only flags", fs.Arg(0))
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"rounds", o.rounds, 1_000_000}, {"restarts", o.restarts, 100_000},
	} {
		if f.value < 1 || f.value > f.max {
			return o, fmt.Errorf("-%s %d: give a number from 1 to %d", f.name, f.value, f.max)
		}
	}
	if o.every < 10*time.Millisecond || o.every > time.Minute {
		return o, fmt.Errorf("-every %v: give a time from 10ms to 1m", o.every)
	}
	return o, nil
}
