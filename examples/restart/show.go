//go:build !android && !ios

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/reuse/internal/term"
)

// A show restarts the server and prints how it goes.
type show struct {
	options
	cannot     error // why the mode is not the one that was asked for
	screen     *term.Screen
	fresh      *load // a connection for each request
	kept       *load // connections that are kept
	restarting atomic.Bool
	begin      time.Time
	processes  []*process // one of each version; the last one runs
}

func showRestarts(o options, stdout, stderr io.Writer) (err error) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		return errors.New("this example starts processes, which " + runtime.GOOS + " has not")
	}
	limited, cancel := context.WithTimeout(context.Background(), o.total()+time.Duration(o.restarts+4)*patience)
	defer cancel()
	ctx, cancel := signal.NotifyContext(limited, os.Interrupt, syscall.SIGTERM)
	defer cancel()

	s := &show{options: o, screen: term.New(stdout)}
	if o.json {
		s.screen = term.New(stderr)
	}
	err = s.first(ctx)
	if errors.Is(err, context.Canceled) {
		return term.ErrInterrupted
	}
	if err != nil && strings.HasSuffix(o.address, ":0") {
		return fmt.Errorf("%w (is the loopback interface up, with its address?)", err)
	} else if err != nil {
		return fmt.Errorf("%w (without -address the system chooses a port)", err)
	}
	s.introduce()

	s.begin = time.Now()
	s.fresh = newLoad("http://"+s.address, false, &s.restarting)
	s.kept = newLoad("http://"+s.address, true, &s.restarting)
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var clients sync.WaitGroup
	for range s.clients {
		clients.Go(func() { s.fresh.run(loading, s.interval()) })
	}
	for range s.keepAlive {
		clients.Go(func() { s.kept.run(loading, s.interval()) })
	}
	err = s.restart(ctx)
	stopLoad()
	clients.Wait()
	err = errors.Join(err, s.running().stop())
	s.screen.Draw()

	if limited.Err() != nil {
		err = errors.Join(err, errors.New("gave up: this took far too long"))
	} else if ctx.Err() != nil {
		s.screen.Printf("\nInterrupted. Until then:\n")
	}
	interrupted := ctx.Err() != nil
	err = errors.Join(err, s.report(stdout, interrupted), s.verdict(), s.screen.Err())
	if err == nil && interrupted {
		return term.ErrInterrupted
	}
	return err
}

func (s *show) running() *process { return s.processes[len(s.processes)-1] }

// first starts version 1, in the first mode that this system has.
func (s *show) first(ctx context.Context) error {
	for {
		p, err := start(ctx, 1, s.options)
		if err == nil {
			s.address = p.address // with the port, for the other versions
			s.processes = []*process{p}
			return nil
		}
		next, ok := lesser[s.mode]
		if !ok || !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		s.cannot, s.mode = cmp.Or(s.cannot, err), next
	}
}

// introduce says what there will be to see.
func (s *show) introduce() {
	each := term.Count(s.listeners, "listener")
	if s.mode == gap {
		each = "1 listener"
	}
	keep := ""
	if s.keepAlive > 0 {
		keep = " " + term.Number(s.keepAlive) + " more keep their connections."
	}
	s.screen.Textf("%s of a web server with %s on %s, under the load of %s: up to %s a second, each with one request.%s",
		term.Count(s.restarts, "restart"), each, s.address, term.Count(s.clients, "client"), term.Count(s.rate, "new connection"), keep)
	if s.cannot != nil {
		s.screen.Textf("This system cannot do it without loss: %v.", s.cannot)
	}
	switch s.mode {
	case handover:
		s.screen.Textf("Each version takes the port over (TakeOver), then the one that it replaces finishes what it has (Drain) and stops.")
	case naive:
		s.screen.Textf("The versions only share the port: each listens before the one that it replaces stops.")
	case gap:
		s.screen.Textf("Nothing is shared: each version stops before the next one listens.")
	}
	s.screen.Printf("\n")
}

// restart lets every version serve for a while and replaces it by the next.
func (s *show) restart(ctx context.Context) error {
	s.event("version 1 listens")
	for s.wait(ctx) && len(s.processes) <= s.restarts {
		if err := s.replace(ctx); err != nil {
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
	return nil
}

// replace is one restart.
func (s *show) replace(ctx context.Context) error {
	s.restarting.Store(true)
	defer s.restarting.Store(false)
	old := s.running()
	if s.mode == gap {
		if err := old.stop(); err != nil {
			return err
		}
	}
	next, err := start(ctx, old.version+1, s.options)
	if err != nil {
		return err
	}
	s.processes = append(s.processes, next)
	switch s.mode {
	case handover:
		if err := old.handOver(); err != nil {
			return err
		}
		s.event("version %d took over, %d drained", next.version, old.version)
	case naive:
		if err := old.stop(); err != nil {
			return err
		}
		s.event("version %d listens, %d stopped", next.version, old.version)
	case gap:
		s.event("version %d stopped, %d listens", old.version, next.version)
	}
	return nil
}

// wait lets the running version serve for its time, and at least until it has
// answered something. It returns false if ctx ended before.
func (s *show) wait(ctx context.Context) bool {
	served := time.After(s.duration)
	frame := time.NewTicker(50 * time.Millisecond)
	defer frame.Stop()
	for served != nil || s.fresh.answeredBy(s.running().version) == 0 {
		select {
		case <-ctx.Done():
			return false
		case <-served:
			served = nil
		case <-frame.C:
			s.draw()
		}
	}
	return true
}

// event prints what has happened and when.
func (s *show) event(format string, a ...any) {
	s.screen.Printf("%5.1f s  %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, a...))
}

// draw shows the progress, if the screen can.
func (s *show) draw() {
	answered, lost := s.fresh.totals()
	text := fmt.Sprintf("  %s answered, %s lost", term.Number(answered), term.Number(lost))
	columns, _ := s.screen.Size()
	// The last columns are for the ^C that a terminal shows.
	bar := s.screen.Bar(min(columns-len(text)-4, 40), float64(time.Since(s.begin))/float64(s.total()))
	if lost > 0 {
		text = s.screen.Paint(term.Red, text)
	}
	s.screen.Draw(" " + bar + text)
}

// The result

// A result is what -json prints. Times are in milliseconds.
type result struct {
	Mode        mode           `json:"mode"`
	Cannot      string         `json:"cannot,omitempty"` // why it is not the mode that was asked for
	Network     string         `json:"network"`
	Address     string         `json:"address"`
	Listeners   int            `json:"listeners"`
	Clients     int            `json:"clients"`
	Restarts    int            `json:"restarts"`
	Interrupted bool           `json:"interrupted"`
	Connections int            `json:"connections"`
	Answered    int            `json:"answered"`
	Lost        int            `json:"lost"`
	Reasons     map[string]int `json:"reasons"`
	Quiet       quantiles      `json:"quiet"`
	Restart     quantiles      `json:"restart"`
	TakeOver    *spread        `json:"take_over,omitempty"`
	Drain       *spread        `json:"drain,omitempty"`
	KeepAlive   keepAlive      `json:"keep_alive"`
	Versions    []version      `json:"versions"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

type spread struct {
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

type keepAlive struct {
	Clients  int            `json:"clients"`
	Requests int            `json:"requests"`
	Answered int            `json:"answered"`
	Lost     int            `json:"lost"`
	Repeated int            `json:"repeated"`
	Reasons  map[string]int `json:"reasons"`
}

type version struct {
	Version  int `json:"version"`
	Process  int `json:"process"`
	Answered int `json:"answered"`
	Kept     int `json:"keep_alive_answered"`
	// 0 where it did not: version 1 has nothing to take over, the last does not drain.
	TakeOver float64 `json:"take_over"`
	Drain    float64 `json:"drain"`
}

// result sums up. The load has stopped.
func (s *show) result(interrupted bool) result {
	quant := func(l latency) quantiles {
		return quantiles{millis(l.quantile(0.5)), millis(l.quantile(0.99)), millis(l.quantile(1))}
	}
	r := result{
		Mode: s.mode, Network: s.network, Address: s.address, Listeners: s.listeners, Clients: s.clients,
		Restarts: len(s.processes) - 1, Interrupted: interrupted,
		Connections: s.fresh.sent, Reasons: s.fresh.lost, Quiet: quant(s.fresh.quiet), Restart: quant(s.fresh.restart),
		KeepAlive: keepAlive{Clients: s.keepAlive, Requests: s.kept.sent, Repeated: s.kept.repeated, Reasons: s.kept.lost},
	}
	if s.mode == gap {
		r.Listeners = 1
	}
	if s.cannot != nil {
		r.Cannot = s.cannot.Error()
	}
	r.Answered, r.Lost = s.fresh.totals()
	r.KeepAlive.Answered, r.KeepAlive.Lost = s.kept.totals()
	var took, drained []time.Duration
	for i, p := range s.processes {
		r.Versions = append(r.Versions, version{p.version, p.cmd.Process.Pid, s.fresh.answeredBy(p.version), s.kept.answeredBy(p.version), 0, millis(p.drained)})
		if i > 0 {
			r.Versions[i].TakeOver = millis(p.took)
			took = append(took, p.took)
			drained = append(drained, s.processes[i-1].drained)
		}
	}
	if s.mode == handover && len(took) > 0 {
		r.TakeOver, r.Drain = spreadOf(took), spreadOf(drained)
	}
	return r
}

func spreadOf(list []time.Duration) *spread {
	slices.Sort(list)
	return &spread{millis(list[len(list)/2]), millis(list[len(list)-1])}
}

// report prints the result, and fails if the counts do not add up.
func (s *show) report(stdout io.Writer, interrupted bool) error {
	r := s.result(interrupted)
	if s.json {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		return errors.Join(out.Encode(r), s.fresh.check(len(s.processes)), s.kept.check(len(s.processes)))
	}
	s.screen.Printf("\n")
	s.screen.Textf("%s: %s answered, %s lost", term.Count(r.Connections, "connection"), term.Number(r.Answered), term.Number(r.Lost))

	s.screen.Printf("\nversion  process  answered  keep-alive\n")
	for _, v := range r.Versions {
		s.screen.Printf("%7d  %7d  %8s  %10s\n", v.Version, v.Process, term.Number(v.Answered), term.Number(v.Kept))
	}
	s.screen.Printf("\nmilliseconds    median     99%%     max\n")
	s.screen.Printf("answer, quiet  %7.1f %7.1f %7.1f\n", r.Quiet.P50, r.Quiet.P99, r.Quiet.Max)
	s.screen.Printf("in a restart   %7.1f %7.1f %7.1f\n", r.Restart.P50, r.Restart.P99, r.Restart.Max)
	if r.TakeOver != nil {
		s.screen.Printf("take over      %7.1f         %7.1f\n", r.TakeOver.Median, r.TakeOver.Max)
		s.screen.Printf("drain          %7.1f         %7.1f\n", r.Drain.Median, r.Drain.Max)
	}
	s.because(r.Reasons)
	if k := r.KeepAlive; k.Clients > 0 {
		s.screen.Printf("\n")
		s.screen.Textf("keep-alive: %s, %s answered, %s lost; %s sent again by http.Client, on a new connection",
			term.Count(k.Requests, "request"), term.Number(k.Answered), term.Number(k.Lost), term.Number(k.Repeated))
		s.because(k.Reasons)
	}
	return errors.Join(s.fresh.check(len(s.processes)), s.kept.check(len(s.processes)))
}

func (s *show) because(reasons map[string]int) {
	if len(reasons) > 0 {
		s.screen.Printf("\n   lost  because\n")
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		s.screen.Printf("%7s  %s\n", term.Number(reasons[reason]), reason)
	}
}

// verdict says what to make of it. A hand-over that loses something has failed.
func (s *show) verdict() error {
	_, lost := s.fresh.totals()
	s.screen.Printf("\n")
	switch {
	case s.mode == handover && lost > 0:
		return term.Not("%s lost in the hand-over", term.Count(lost, "connection"))
	case s.mode == handover:
		s.screen.Textf("Nothing was lost. From the return of TakeOver on new connections went to the new version, and the old one answered all that it had before it closed. -mode naive shows what is lost otherwise.")
	case s.mode == gap:
		s.screen.Textf("Between two versions nobody listened.")
	case lost > 0:
		s.screen.Textf("Somebody listened all the time. But a listener that closes resets the connections in its queue, and Shutdown drops requests that it has not begun to answer. -mode gap shows what is lost when nobody listens between two versions.")
	default:
		s.screen.Textf("That nothing was lost is luck: a listener that closes resets the connections in its queue, and Shutdown drops requests that it has not begun to answer.")
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
