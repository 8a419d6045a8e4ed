//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/perf/benchmath"
	"golang.org/x/sys/unix"
)

// A series is one thing that several ways do, measured in turns.
type series struct {
	name  string
	ways  []string
	cpu   [][]float64 // of each way in each turn: nanoseconds of the processors
	clock [][]float64 // and by the clock
	alloc []float64   // of each way; nil where it was not counted
}

func newSeries(name string, ways []string) series {
	return series{name: name, ways: ways, cpu: make([][]float64, len(ways)), clock: make([][]float64, len(ways))}
}

// ratio compares the processor time of two ways turn by turn, and says how one's is
// to the other's.
func (s series) ratio(way, to string) benchmath.Summary {
	return ratio(s.of(s.cpu, way), s.of(s.cpu, to))
}

func (s series) of(list [][]float64, way string) []float64 { return list[slices.Index(s.ways, way)] }

func (s series) allocs(way string) float64 { return s.alloc[slices.Index(s.ways, way)] }

func ratio(a, b []float64) benchmath.Summary {
	list := make([]float64, len(a))
	for i := range a {
		list[i] = a[i] / b[i]
	}
	return summary(list)
}

// summary is the median with the bounds that it has with 95% confidence.
func summary(list []float64) benchmath.Summary {
	sample := benchmath.NewSample(slices.Clone(list), &benchmath.DefaultThresholds)
	return benchmath.AssumeNothing.Summary(sample, 0.95)
}

// block is how many calls are timed at once: few enough that a busy moment of the
// machine spoils one of many, and more than a clock's error.
const block = 50

// measureCalls measures the calls that make one socket and close it.
func (r *results) measureCalls(ctx context.Context, o options) error {
	all := ways()
	// A port of one's own, which is free: where the kernel need not look for one.
	tcp, udp, err := freePorts()
	if err != nil {
		return err
	}
	listen := func(name, address string, list []way) error {
		var calls []call
		for _, w := range list {
			calls = append(calls, call{w.name, func() error { return closed(w.listen("tcp4", address)) }})
		}
		return r.add(ctx, o, name, calls, nil)
	}
	packet := func(name, address string) error {
		var calls []call
		for _, w := range all {
			if w.packet != nil {
				calls = append(calls, call{w.name, func() error { return closed(w.packet("udp4", address)) }})
			}
		}
		return r.add(ctx, o, name, calls, nil)
	}
	for _, step := range []func() error{
		func() error { return multipath(false) },
		func() error { return listen("Listen, port 0", "127.0.0.1:0", all) },
		func() error { return listen("Listen, a given port", tcp, all) },
		func() error { return packet("ListenPacket, port 0", "127.0.0.1:0") },
		func() error { return packet("ListenPacket, a given port", udp) },
		func() error { return r.measureDial(ctx, o, all) },
		func() error { return multipath(true) },
		func() error {
			viaNet := slices.DeleteFunc(slices.Clone(all), func(w way) bool { return !w.viaNet })
			return listen("Listen, port 0, Multipath TCP", "127.0.0.1:0", viaNet)
		},
		func() error { return multipath(false) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// measureDial dials from a local address with port 0. The listener's queue is
// emptied between the turns, by nobody's clock.
func (r *results) measureDial(ctx context.Context, o options, all []way) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	dialed := 0
	var calls []call
	for _, w := range all {
		if w.dial == nil {
			continue
		}
		calls = append(calls, call{w.name, func() error {
			c, err := w.dial("tcp4", "127.0.0.1:0", l.Addr().String())
			if err != nil {
				return err
			}
			dialed++
			if err := c.(*net.TCPConn).SetLinger(0); err != nil { // no TIME_WAIT
				return err
			}
			return c.Close()
		}})
	}
	return r.add(ctx, o, "Dial", calls, func() error {
		for ; dialed > 0; dialed-- {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	})
}

type call struct {
	way string
	do  func() error
}

// add measures calls in turns, and counts what each allocates. After is called
// between the turns.
func (r *results) add(ctx context.Context, o options, name string, calls []call, after func() error) error {
	if after == nil {
		after = func() error { return nil }
	}
	var names []string
	for _, c := range calls {
		names = append(names, c.way)
	}
	s := newSeries(name, names)
	for _, c := range calls {
		var err error
		s.alloc = append(s.alloc, testing.AllocsPerRun(100, func() {
			if e := c.do(); e != nil {
				err = e
			}
		}))
		if err != nil {
			return fmt.Errorf("%s, %s: %w", name, c.way, err)
		}
		if err := after(); err != nil {
			return err
		}
	}
	for range o.rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, w := range rand.Perm(len(calls)) { // nobody always follows the same one
			watch, err := start()
			if err != nil {
				return err
			}
			for range block {
				if err := calls[w].do(); err != nil {
					return fmt.Errorf("%s, %s: %w", name, calls[w].way, err)
				}
			}
			t, err := watch.stop()
			if err != nil {
				return err
			}
			s.add(w, t, block)
			if err := after(); err != nil {
				return err
			}
		}
	}
	r.calls = append(r.calls, s)
	return nil
}

// add adds a turn of so many calls.
func (s *series) add(way int, t lap, calls int) {
	s.cpu[way] = append(s.cpu[way], float64(t.cpu)/float64(calls))
	s.clock[way] = append(s.clock[way], float64(t.clock)/float64(calls))
}

// A lap is the time that something took: what this process has used of the
// processors, the collection of its garbage included, and by the clock. What waits
// for nothing takes as long by either on an idle machine; on a busy one the
// first does not count others' work.
type lap struct{ cpu, clock time.Duration }

type stopwatch struct {
	cpu   time.Duration
	clock time.Time
}

func start() (stopwatch, error) {
	cpu, err := processorTime()
	return stopwatch{cpu, time.Now()}, err
}

func (w stopwatch) stop() (lap, error) {
	cpu, err := processorTime()
	return lap{cpu - w.cpu, time.Since(w.clock)}, err
}

func processorTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(t.Nano()), nil
}

// closed closes what was made without an error.
func closed(c interface{ Close() error }, err error) error {
	if err != nil {
		return err
	}
	return c.Close()
}

// freePorts returns addresses that nobody uses.
func freePorts() (tcp, udp string, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer p.Close()
	return l.Addr().String(), p.LocalAddr().String(), nil
}
