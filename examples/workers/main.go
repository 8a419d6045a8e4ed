//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Workers starts processes that all listen on one port, makes connections to it,
// and shows which process gets how many.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
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

// workerEnv tells a process that it is a worker, and its number.
const workerEnv = "REUSE_WORKERS_NUMBER"

// answer is what a worker says: its number, and the process that started it, as
// somebody else may run this example on the same port.
const answer = "worker %d, started by process %d"

const (
	patience = 5 * time.Second // for a start, a stop, a connection
	limit    = time.Minute     // for all connections
	clients  = 16              // make connections at a time
)

func main() {
	if number, notWorker := strconv.Atoi(os.Getenv(workerEnv)); notWorker == nil {
		os.Exit(term.Exit("workers", work(number, os.Args[1]), os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout)
	if err == nil {
		err = showWorkers(o, stdout, stderr)
	}
	return term.Exit("workers", err, stderr)
}

// The worker

// work prints the address that it listens on, and answers every connection until
// its standard input is closed.
func work(number int, address string) error {
	// A terminal sends Ctrl-C to all processes. Only the parent shall act on it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)

	l, err := listen(address)
	if err != nil {
		fmt.Println(err) // in place of the address
		return nil
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent closes the pipe, or is gone
		l.Close()
	}()
	fmt.Println(l.Addr())
	parent := os.Getppid()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		// If this fails, the client counts it. The worker is the one to close
		// first, so that the client's port is free for other connections at once.
		fmt.Fprintf(conn, answer, number, parent)
		conn.Close()
	}
}

func listen(address string) (net.Listener, error) {
	share, _, err := sharing()
	if err != nil {
		return nil, err
	}
	return share.Listen(context.Background(), "tcp", address)
}

// sharing tells how processes of this system share a port, and whether the kernel
// spreads connections over them, which is what PortLB says and Port does not. The
// error is errors.ErrUnsupported where they cannot share one.
func sharing() (share reuse.Config, spreads bool, err error) {
	if err = reuse.PortLB.Supported(); err == nil {
		return reuse.Config{PortLB: reuse.On}, true, nil
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = reuse.Port.Supported()
	}
	return reuse.Config{Port: reuse.On}, false, err
}

// The worker's process

// A process runs one worker.
type process struct {
	number  int
	address string
	cmd     *exec.Cmd
	stdin   io.Closer // closing it asks the worker to stop
}

// start starts this program as a worker and returns when it listens. It heeds the
// end of ctx only if that fails.
func start(ctx context.Context, number int, address string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, address)
	cmd.Env = append(os.Environ(), workerEnv+"="+strconv.Itoa(number))
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
	p := &process{number: number, cmd: cmd, stdin: stdin}
	late := p.killAfter(patience)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	late.Stop()
	p.address = strings.TrimSpace(line)
	if _, addrErr := netip.ParseAddrPort(p.address); addrErr == nil {
		return p, nil
	}
	err = errors.Join(err, p.stop())
	if p.address != "" { // what the worker printed is why it failed
		return nil, fmt.Errorf("worker %d did not start: %s", number, p.address)
	}
	select { // it is Ctrl-C if that came before the worker could take care
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Second):
		return nil, fmt.Errorf("worker %d did not start: %w", number, err)
	}
}

// stop has the worker end and waits for the end of its process.
func (p *process) stop() error {
	p.stdin.Close()
	late := p.killAfter(patience)
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("worker %d: %w", p.number, err)
	}
	return nil
}

func (p *process) killAfter(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() {
		_ = p.cmd.Process.Kill() // fails only if it has ended by itself
	})
}

// The connections

// A tally counts connections. Every one that is made is got by some worker or
// fails for some reason.
type tally struct {
	mu     sync.Mutex
	made   int
	got    []int // by worker
	failed map[string]int
}

// connect is one client: it makes connections, one after the other, until all
// are made or ctx ends.
func (t *tally) connect(ctx context.Context, o options) {
	for ctx.Err() == nil && t.next(o.connections) {
		worker, err := ask(o.address)
		t.mu.Lock()
		if err == nil {
			t.got[worker]++
		} else {
			t.failed[reason(err)]++
		}
		t.mu.Unlock()
	}
}

// next counts a connection that is about to be made, if there are any left.
func (t *tally) next(connections int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.made == connections {
		return false
	}
	t.made++
	return true
}

// ask makes a connection and returns the number of the worker that got it. It
// does not heed the end of the run: what is begun is counted.
func ask(address string) (worker int, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	got, err := io.ReadAll(io.LimitReader(conn, 100))
	if err != nil {
		return 0, err
	}
	var parent int
	n, _ := fmt.Sscanf(string(got), answer, &worker, &parent)
	if n < 2 || parent != os.Getpid() {
		return 0, errors.New("answered by something else")
	}
	return worker, nil
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

// counts returns a copy of the counts by worker, and the sums.
func (t *tally) counts() (byWorker []int, got, failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.got {
		got += n
	}
	for _, n := range t.failed {
		failed += n
	}
	return slices.Clone(t.got), got, failed
}

// The run

// A show makes the connections and prints who gets them.
type show struct {
	options
	share   reuse.Config
	spreads bool // see sharing
	screen  *term.Screen
	tally   *tally
	running []*process
}

func showWorkers(o options, stdout, stderr io.Writer) (err error) {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		return errors.New("this example starts processes, which " + runtime.GOOS + " has not")
	}
	share, spreads, err := sharing()
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("processes cannot share a port here: %w", err)
	}
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ctx, cancel := signal.NotifyContext(limited, os.Interrupt, syscall.SIGTERM)
	defer cancel()

	s := &show{options: o, share: share, spreads: spreads, screen: term.New(stdout)}
	if o.json {
		s.screen = term.New(stderr)
	}
	s.tally = &tally{got: make([]int, o.workers), failed: map[string]int{}}
	defer func() {
		for _, p := range s.running {
			if failed := p.stop(); failed != nil {
				err = errors.Join(err, failed)
			}
		}
	}()
	for number := range s.workers {
		p, err := start(ctx, number, s.address)
		if errors.Is(err, context.Canceled) {
			return term.ErrInterrupted
		}
		if err != nil {
			return fmt.Errorf("%w (-address 127.0.0.1:0 lets the system choose a port)", err)
		}
		s.running = append(s.running, p)
		s.address = p.address // with the port, for the other workers
	}
	s.screen.Textf("%d processes listen on %s (%v) and get %s, %d at a time.",
		s.workers, s.address, share, term.Count(s.connections, "connection"), clients)

	s.connect(ctx)
	interrupted := ctx.Err() != nil && limited.Err() == nil
	if limited.Err() != nil {
		s.screen.Printf("\nStopped after %v. Until then:\n", limit)
	} else if interrupted {
		s.screen.Printf("\nInterrupted. Until then:\n")
	}
	if err := s.report(stdout, interrupted); err != nil {
		return err
	}
	_, got, failed := s.tally.counts()
	switch {
	case s.screen.Err() != nil:
		return s.screen.Err()
	case failed > 0 && got == 0:
		return errors.New("no worker got a connection; is the loopback interface up, with its address?")
	case failed > 0:
		return term.Not("%s failed", term.Count(failed, "connection"))
	case interrupted:
		return term.ErrInterrupted
	}
	return nil
}

// connect makes all connections, and shows on a terminal who gets them.
func (s *show) connect(ctx context.Context) {
	done := make(chan struct{})
	go func() { // ends when all connections are made, or ctx ends
		defer close(done)
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() { s.tally.connect(ctx, s.options) })
		}
		wg.Wait()
	}()
	frame := time.NewTicker(50 * time.Millisecond)
	defer frame.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-done:
			s.screen.Draw()
			return
		case <-frame.C:
			lines := s.table()
			if _, rows := s.screen.Size(); len(lines)+1 > rows {
				lines = lines[len(lines)-1:] // the sum
			}
			s.screen.Draw(append([]string{""}, lines...)...)
		case <-second.C:
			if !s.screen.Live() {
				_, got, _ := s.tally.counts()
				s.screen.Printf("%s so far\n", term.Count(got, "connection"))
			}
		}
	}
}

// table returns a line for each worker, and one for all. The bars are full when
// a worker has got what it would if all got the same; or more, if one has more.
func (s *show) table() []string {
	byWorker, got, failed := s.tally.counts()
	full := max(slices.Max(byWorker), s.connections/s.workers)
	columns, _ := s.screen.Size()
	lines := []string{"process  connections  share"}
	for i, p := range s.running {
		n := byWorker[i]
		line := fmt.Sprintf("%7d  %11s  %4.1f%%", p.cmd.Process.Pid, term.Number(n), 100*float64(n)/float64(max(got, 1)))
		if s.screen.Live() {
			line += "  " + s.screen.Bar(min(columns-len(line)-3, 60), float64(n)/float64(full))
		}
		lines = append(lines, line)
	}
	all := fmt.Sprintf("    all  %11s", term.Number(got))
	if failed > 0 {
		all += s.screen.Paint(term.Red, fmt.Sprintf("  and %s failed", term.Number(failed)))
	}
	return append(lines, all)
}

// A result is what -json prints.
type result struct {
	Address     string         `json:"address"`
	Config      string         `json:"config"` // of every worker
	Spreads     bool           `json:"spreads"`
	Interrupted bool           `json:"interrupted"`
	Connections int            `json:"connections"` // that were made
	Got         int            `json:"got"`
	Failed      int            `json:"failed"`
	Reasons     map[string]int `json:"reasons"`
	Workers     []worker       `json:"workers"`
}

type worker struct {
	Process int `json:"process"`
	Got     int `json:"got"`
}

// result sums up. All connections have ended.
func (s *show) result(interrupted bool) result {
	byWorker, got, failed := s.tally.counts()
	r := result{
		Address: s.address, Config: s.share.String(), Spreads: s.spreads, Interrupted: interrupted,
		Connections: s.tally.made, Got: got, Failed: failed, Reasons: s.tally.failed,
	}
	for i, p := range s.running {
		r.Workers = append(r.Workers, worker{p.cmd.Process.Pid, byWorker[i]})
	}
	return r
}

// report prints the counts and fails if they do not add up.
func (s *show) report(stdout io.Writer, interrupted bool) error {
	_, got, failed := s.tally.counts()
	if s.tally.made != got+failed {
		return fmt.Errorf("the counts do not add up: %d made, %d got, %d failed", s.tally.made, got, failed)
	}
	if s.json {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		return out.Encode(s.result(interrupted))
	}
	s.screen.Printf("\n")
	for _, line := range s.table() {
		s.screen.Printf("%s\n", line)
	}
	if failed > 0 {
		s.screen.Printf("\n failed  because\n")
	}
	for _, reason := range slices.Sorted(maps.Keys(s.tally.failed)) {
		s.screen.Printf("%7s  %s\n", term.Number(s.tally.failed[reason]), reason)
	}
	s.screen.Printf("\n")
	if s.spreads {
		s.screen.Textf("The kernel chooses by a hash of the addresses and ports, so the shares are not quite the same.")
	} else {
		s.screen.Textf("%s has no PortLB: nothing spreads the connections, one process may get them all.", runtime.GOOS)
	}
	return nil
}

// The command line

type options struct {
	address     string
	workers     int
	connections int
	json        bool
}

const help = `Usage: go run ./examples/workers [flags]

Starts processes that listen on the same port, makes connections to it, and
shows which process gets how many. It takes seconds, at most a minute.

Systems: on Linux, FreeBSD, DragonFly and Solaris 11.4 the kernel spreads the
connections (PortLB). On macOS, the other BSDs, AIX and earlier Solaris (Port)
one process may get them all. Windows, illumos and Plan 9 cannot share a port,
and js and wasip1 have no processes: this cannot run there.

Exit status: 0 if every connection was answered
  1    if one was not
  2    if this could not be done
  130  if it was interrupted; what was counted until then is told
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/workers
  go run ./examples/workers -n 8 -connections 100000
  go run ./examples/workers -json
`

func parse(args []string, stdout io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("workers", flag.ContinueOnError)
	fs.StringVar(&o.address, "address", "127.0.0.1:0", "loopback `address` and port; port 0 is any")
	fs.IntVar(&o.workers, "n", 4, "`number` of processes, 2 to 64")
	fs.IntVar(&o.connections, "connections", 20000, "`number` of connections, 1 to 1000000")
	fs.BoolVar(&o.json, "json", false, "print the counts as JSON, and the rest to standard error")
	if err := term.Parse(fs, help, args, stdout); err != nil {
		return o, err
	}
	address, err := netip.ParseAddrPort(o.address)
	switch {
	case fs.NArg() > 0:
		return o, term.Mistake("unexpected argument %q: there are only flags", fs.Arg(0))
	case err != nil || !address.Addr().IsLoopback():
		return o, term.Mistake("-address %q: give a loopback address and a port, such as 127.0.0.1:0 or [::1]:8080", o.address)
	case o.workers < 2 || o.workers > 64:
		return o, term.Mistake("-n %d: give a number from 2 to 64", o.workers)
	case o.connections < 1 || o.connections > 1000000:
		return o, term.Mistake("-connections %d: give a number from 1 to 1000000", o.connections)
	}
	return o, nil
}
