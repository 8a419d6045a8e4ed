//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Restart restarts a web server under load. Each version listens on the port of
// the one before it, beside it, so that somebody always does. The program counts
// the requests that were answered and those that were lost all the same.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

// versionEnv tells a process that it is a server, and which version.
const versionEnv = "REUSE_RESTART_VERSION"

// answer is what the server says: its version, and the process that started it,
// as somebody else may run this example on the same port.
const answer = "version %d, started by process %d"

// patience is how long anything may take that should take no time: a start,
// a stop, a request.
const patience = 5 * time.Second

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

// The server

// serve is one version of the server. It prints its address, answers until its
// standard input is closed, and shuts down as net/http advises.
func serve(version int, o options) error {
	// A terminal sends Ctrl-C to all processes. Only the parent shall act on it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)

	l, err := listen(o)
	if err != nil {
		fmt.Println(err) // in place of the address
		return nil
	}
	parent := os.Getppid()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, answer, version, parent)
		}),
		ReadHeaderTimeout: patience,
	}
	stopped := make(chan error, 1)
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends when the parent closes the pipe, or is gone
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- srv.Shutdown(ctx)
	}()
	fmt.Println(l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func listen(o options) (net.Listener, error) {
	if !o.overlap {
		return net.Listen("tcp", o.address)
	}
	c, err := sharing()
	if err != nil {
		return nil, err
	}
	return c.Listen(context.Background(), "tcp", o.address)
}

// sharing tells how processes of this system share a port. With PortLB the kernel
// spreads connections over them. With Port alone one may get them all, which will
// do here. The error is errors.ErrUnsupported where neither exists.
func sharing() (reuse.Config, error) {
	err := reuse.PortLB.Supported()
	if err == nil {
		return reuse.Config{PortLB: reuse.On}, nil
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = reuse.Port.Supported()
	}
	return reuse.Config{Port: reuse.On}, err
}

// The server's process

// A process runs one version of the server.
type process struct {
	version int
	address string
	cmd     *exec.Cmd
	stdin   io.Closer // closing it asks the server to stop
	stopped bool
}

// start starts this program as a server and returns when it listens. It heeds the
// end of ctx only if that fails.
func start(ctx context.Context, version int, o options) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "-address", o.address, "-overlap="+strconv.FormatBool(o.overlap))
	cmd.Env = append(os.Environ(), versionEnv+"="+strconv.Itoa(version))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{version: version, cmd: cmd, stdin: stdin}
	late := p.killAfter(patience)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	late.Stop()
	p.address = strings.TrimSpace(line)
	if _, addrErr := netip.ParseAddrPort(p.address); addrErr == nil {
		return p, nil
	}
	err = errors.Join(err, p.stop())
	if p.address != "" { // what the server printed is why it failed
		return nil, fmt.Errorf("version %d did not start: %s", version, p.address)
	}
	select { // it is Ctrl-C if that came before the server could take care
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Second):
		return nil, fmt.Errorf("version %d did not start: %w", version, err)
	}
}

// stop has the server shut down and waits for the end of its process.
func (p *process) stop() error {
	if p.stopped {
		return nil
	}
	p.stopped = true
	p.stdin.Close()
	late := p.killAfter(2 * patience)
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("version %d: %w", p.version, err)
	}
	return nil
}

func (p *process) killAfter(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() {
		_ = p.cmd.Process.Kill() // fails only if it has ended by itself
	})
}

// The load

// A tally counts requests. Every one that is sent is answered by some version or
// lost for some reason.
type tally struct {
	mu       sync.Mutex
	sent     int
	answered map[int]int
	lost     map[string]int
}

// load is one client: it sends requests, one after the other, until ctx ends.
func (t *tally) load(ctx context.Context, client *http.Client, url string, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		t.mu.Lock()
		t.sent++
		t.mu.Unlock()

		version, err := ask(client, url)

		t.mu.Lock()
		if err == nil {
			t.answered[version]++
		} else {
			t.lost[reason(err)]++
		}
		t.mu.Unlock()

		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// ask sends a request and returns the version that answered. It does not heed
// the end of the load: who has sent a request waits for the answer.
func ask(client *http.Client, url string) (version int, err error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return 0, err
	}
	var parent int
	n, _ := fmt.Sscanf(string(body), answer, &version, &parent)
	if n < 2 || parent != os.Getpid() {
		return 0, errors.New("answered by something else")
	}
	return version, nil
}

// reason is the innermost error, without the addresses that differ every time.
func reason(err error) string {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "timeout"
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return strings.TrimSuffix(err.Error(), ".") // which Windows writes
}

func (t *tally) totals() (answered, lost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.answered {
		answered += n
	}
	for _, n := range t.lost {
		lost += n
	}
	return answered, lost
}

func (t *tally) answeredBy(version int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answered[version]
}

// The restarts

// A show restarts the server and prints how it goes.
type show struct {
	options
	screen    *term.Screen
	tally     *tally
	begin     time.Time
	processes []*process // one of each version; the last one runs
}

func run(o options) (err error) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		return errors.New("this example starts processes, which " + runtime.GOOS + " has not")
	}
	share, cannot := sharing()
	if cannot != nil {
		if !errors.Is(cannot, errors.ErrUnsupported) {
			return cannot
		}
		o.overlap = false
	}
	limited, cancel := context.WithTimeout(context.Background(), o.total()+4*patience)
	defer cancel()
	ctx, cancel := signal.NotifyContext(limited, os.Interrupt, syscall.SIGTERM)
	defer cancel()

	first, err := start(ctx, 1, o)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w (-address 127.0.0.1:0 lets the system choose a port)", err)
	}
	o.address = first.address // with the port, for the other versions

	s := &show{options: o, screen: term.New(os.Stdout), begin: time.Now(), processes: []*process{first}}
	s.tally = &tally{answered: map[int]int{}, lost: map[string]int{}}
	s.screen.Textf("%s of a web server on %s, under the load of %s: up to %s a second, each on a connection of its own.",
		term.Count(o.restarts, "restart"), o.address, term.Count(o.clients, "client"), term.Count(o.rate, "request"))
	switch {
	case o.overlap:
		s.screen.Textf("The versions share the port (%v): each listens before the one that it replaces stops.", share)
	case cannot != nil:
		s.screen.Textf("On %s processes cannot share a port: each version stops before the next one listens.", runtime.GOOS)
	default:
		s.screen.Textf("Nothing is shared: each version stops before the next one listens.")
	}
	s.screen.Printf("\n")

	// Keep-alive connections would hide what happens to new ones.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var clients sync.WaitGroup
	for range o.clients {
		clients.Go(func() {
			s.tally.load(loading, client, "http://"+o.address, time.Duration(o.clients)*time.Second/time.Duration(o.rate))
		})
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
	if err = errors.Join(err, s.report()); err == nil {
		s.explain()
	}
	return errors.Join(err, s.screen.Err())
}

func (s *show) running() *process { return s.processes[len(s.processes)-1] }

// restart lets every version serve for a while and replaces it by the next.
func (s *show) restart(ctx context.Context) error {
	s.event("version 1 listens")
	for s.wait(ctx) && len(s.processes) <= s.restarts {
		old := s.running()
		if !s.overlap {
			if err := old.stop(); err != nil {
				return err
			}
		}
		next, err := start(ctx, old.version+1, s.options)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		s.processes = append(s.processes, next)
		if err := old.stop(); err != nil {
			return err
		}
		if s.overlap {
			s.event("version %d listens, %d stopped", next.version, old.version)
		} else {
			s.event("version %d stopped, %d listens", old.version, next.version)
		}
	}
	return nil
}

// wait lets the running version serve for its time, and at least until it has
// answered something. It returns false if ctx ended before.
func (s *show) wait(ctx context.Context) bool {
	served := time.After(s.duration)
	frame := time.NewTicker(50 * time.Millisecond)
	defer frame.Stop()
	for served != nil || s.tally.answeredBy(s.running().version) == 0 {
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
	answered, lost := s.tally.totals()
	text := fmt.Sprintf("  %s answered, %s lost", term.Number(answered), term.Number(lost))
	columns, _ := s.screen.Size()
	// The last columns are for the ^C that a terminal shows.
	bar := s.screen.Bar(min(columns-len(text)-4, 40), float64(time.Since(s.begin))/float64(s.total()))
	if lost > 0 {
		text = s.screen.Paint(term.Red, text)
	}
	s.screen.Draw(" " + bar + text)
}

// report prints the counts and fails if they do not add up.
func (s *show) report() error {
	sent := s.tally.sent
	answered, lost := s.tally.totals()
	s.screen.Printf("\n%s: %s answered, %s lost\n", term.Count(sent, "request"), term.Number(answered), term.Number(lost))

	s.screen.Printf("\nversion  process  answered\n")
	byVersion := 0
	for _, p := range s.processes {
		n := s.tally.answered[p.version]
		byVersion += n
		s.screen.Printf("%7d  %7d  %8s\n", p.version, p.cmd.Process.Pid, term.Number(n))
	}
	if lost > 0 {
		s.screen.Printf("\n   lost  because\n")
	}
	for _, reason := range slices.Sorted(maps.Keys(s.tally.lost)) {
		s.screen.Printf("%7s  %s\n", term.Number(s.tally.lost[reason]), reason)
	}

	if sent != answered+lost || byVersion != answered {
		return fmt.Errorf("the counts do not add up: %d sent, %d answered (by version %d), %d lost", sent, answered, byVersion, lost)
	}
	return nil
}

// explain says what to make of it.
func (s *show) explain() {
	s.screen.Printf("\n")
	if !s.overlap {
		s.screen.Textf("Between two versions nobody listened.")
		return
	}
	but := "But"
	if _, lost := s.tally.totals(); lost == 0 {
		but = "That nothing was lost is luck, though:"
	}
	s.screen.Textf("Somebody listened all the time. %s a listener that closes resets the connections in its queue, and Shutdown drops requests that it has not begun to answer. With -overlap=false you see what is lost when nobody listens between two versions.", but)
}

// The command line

type options struct {
	address  string
	restarts int
	clients  int
	rate     int
	duration time.Duration
	overlap  bool
}

// total is how long all versions serve.
func (o options) total() time.Duration { return time.Duration(o.restarts+1) * o.duration }

const help = `Usage: go run ./examples/restart [flags]

Restarts a web server several times while clients use it, and counts the requests
that were answered and lost. Each version is a process of its own and listens on
the same port as the one before it, until that has stopped.

On Linux, FreeBSD, DragonFly and Solaris 11.4 the versions share the port with
PortLB, on macOS, the other BSDs, AIX and earlier Solaris with Port. Windows,
illumos and Plan 9 cannot share a port: there the old version stops before the
next one listens. Systems without processes (js, wasip1) cannot run this.

Flags:
`

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("restart", flag.ContinueOnError)
	fs.StringVar(&o.address, "address", "127.0.0.1:0", "loopback `address` and port to listen on; port 0 is any")
	fs.IntVar(&o.restarts, "restarts", 5, "`number` of restarts, 1 to 50")
	fs.IntVar(&o.clients, "clients", 8, "`number` of clients, 1 to 1000")
	fs.IntVar(&o.rate, "rate", 2000, "`requests` a second of all clients together, up to 20000")
	fs.DurationVar(&o.duration, "duration", 1200*time.Millisecond, "`time` that each version serves, 10ms to 1m")
	fs.BoolVar(&o.overlap, "overlap", true, "start the next version before the old one stops, if this system can")
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print(help)
			fs.SetOutput(os.Stdout)
			fs.PrintDefaults()
		}
		return o, err
	}
	address, err := netip.ParseAddrPort(o.address)
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: there are only flags", fs.Arg(0))
	case err != nil || !address.Addr().IsLoopback():
		return o, fmt.Errorf("-address %q: give a loopback address and a port, such as 127.0.0.1:0 or [::1]:8080", o.address)
	case o.restarts < 1 || o.restarts > 50:
		return o, fmt.Errorf("-restarts %d: give a number from 1 to 50", o.restarts)
	case o.clients < 1 || o.clients > 1000:
		return o, fmt.Errorf("-clients %d: give a number from 1 to 1000", o.clients)
	case o.rate < o.clients || o.rate > 20000:
		return o, fmt.Errorf("-rate %d: give a number from %d, one for each client, to 20000", o.rate, o.clients)
	case o.duration < 10*time.Millisecond || o.duration > time.Minute:
		return o, fmt.Errorf("-duration %v: give a time from 10ms to 1m", o.duration)
	}
	return o, nil
}
