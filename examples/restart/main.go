//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Restart restarts a server under load and counts the requests that are lost.
//
// The server is in server.go, the load in load.go, and the restarts are here.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/restart [flags]

Restarts a server under load, and counts the requests that are answered and
lost. Each version is a process of its own. This process sends the load: half
of the clients open a connection for each request (fresh), half keep theirs
(kept). A request without a complete answer is lost; nothing is sent again.

Modes:
  handover  the next version takes the sockets of the running one, which then
            exits by itself; nothing signals it or tells it of the other
  naive     both share the port, and the old version is told to shut down when
            the next one listens
  gap       the old version stops, then the next one listens

Networks: tcp4 (127.0.0.1), tcp6 (::1), tcp (all addresses, dual-stack) serve
HTTP; udp (127.0.0.1) answers datagrams, for which a client is a socket.

Systems: handover works on Unix, and is naive elsewhere. naive works where
processes can share a port, and is gap elsewhere (Windows, illumos, Plan 9).
Systems without processes (js, wasip1) cannot run this.

Exit status: 0 if all restarts were done, whatever is lost
  2    if this could not be done
  130  if it was interrupted; what was counted until then is printed
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/restart
  go run ./examples/restart -mode naive
  go run ./examples/restart -network udp -restarts 20 -json
`

// A mode is how one version follows the other.
type mode string

const (
	handOver mode = "handover"
	naive    mode = "naive"
	gap      mode = "gap"
)

// modes are what is printed at the end of each.
var modes = map[mode]string{
	handOver: "The sockets went from version to version, and their queue was never closed.",
	naive: "What is in the queue of a socket that closes is lost, and net/http's Shutdown drops requests that it has not begun to answer. " +
		"If nothing is lost here, that is luck.",
	gap: "Between two versions nothing listened.",
}

var addresses = map[string]string{
	"tcp": ":0", "tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "udp": "127.0.0.1:0",
}

func main() {
	if text := os.Getenv(serverEnv); text != "" {
		var s server
		err := json.Unmarshal([]byte(text), &s)
		if err == nil {
			err = s.run()
		}
		os.Exit(term.Exit("restart", err, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	s := show{stdout: stdout, screen: term.New(stdout)}
	err := s.parse(args)
	if err == nil {
		if s.json {
			s.screen = term.New(stderr)
		}
		err = s.run()
	}
	return term.Exit("restart", err, stderr)
}

func (s *show) parse(args []string) error {
	fs := flag.NewFlagSet("restart", flag.ContinueOnError)
	fs.StringVar((*string)(&s.Mode), "mode", string(handOver), "`mode`: handover, naive or gap")
	fs.StringVar(&s.Network, "network", "tcp4", "`network`: tcp, tcp4, tcp6 or udp")
	fs.IntVar(&s.Restarts, "restarts", 10, "`number` of restarts, 1 to 1000")
	fs.IntVar(&s.Clients, "clients", 32, "`number` of clients, 2 to 1000")
	fs.BoolVar(&s.json, "json", false, "print the result as JSON, and the rest to standard error")
	if err := term.Parse(fs, help, args, s.stdout); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return term.Mistake("unexpected argument %q: there are only flags", fs.Arg(0))
	case modes[s.Mode] == "":
		return term.Mistake("-mode %q: give handover, naive or gap", s.Mode)
	case addresses[s.Network] == "":
		return term.Mistake("-network %q: give tcp, tcp4, tcp6 or udp", s.Network)
	case s.Restarts < 1 || s.Restarts > 1000:
		return term.Mistake("-restarts %d: give a number from 1 to 1000", s.Restarts)
	case s.Clients < 2 || s.Clients > 1000:
		return term.Mistake("-clients %d: give a number from 2 to 1000", s.Clients)
	}
	return nil
}

// serves is how long each version serves before the next one starts.
const serves = 300 * time.Millisecond

// A show restarts the server under load. Its exported fields are what -json prints.
type show struct {
	Mode     mode   `json:"mode"`
	Cannot   string `json:"cannot,omitempty"` // why it is not the mode that was asked for
	Network  string `json:"network"`
	Clients  int    `json:"clients"`
	Restarts int    `json:"restarts"`
	Fresh    load   `json:"fresh"`
	Kept     load   `json:"kept"`

	json   bool
	stdout io.Writer
	screen *term.Screen
	server server // the last one that was started
}

func (s *show) run() error {
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		return errors.New("this example starts processes, which " + runtime.GOOS + " has not")
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	service := fmt.Sprintf("restart-%d", os.Getpid())
	s.fallBack(ctx, service)
	s.server = server{service, 0, s.Mode, s.Network, addresses[s.Network]}
	running, err := s.start(ctx)
	if err != nil {
		return err
	}
	s.screen.Textf("%s of a server at %s, mode %s. %s send requests, half of them on fresh connections and half on kept ones.",
		term.Count(s.Restarts, "restart"), running.address, s.Mode, term.Count(s.Clients, "client"))
	s.screen.Printf("\n")

	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var clients sync.WaitGroup
	for i := range s.Clients {
		l, keep := &s.Fresh, i%2 == 1
		if keep {
			l = &s.Kept
		}
		ask := newClient(s.Network, running.address, keep)
		clients.Go(func() { l.run(loading, service, time.Duration(s.Clients)*time.Second/perSecond, ask) })
	}
	for err = s.wait(ctx); err == nil && ctx.Err() == nil && s.server.Version <= s.Restarts; {
		if running, err = s.replace(ctx, running); err == nil {
			err = s.wait(ctx)
		}
	}
	stopLoad()
	clients.Wait()
	s.Restarts = s.server.Version - 1
	if err = errors.Join(err, running.stop(), s.report(), s.screen.Err()); err == nil && ctx.Err() != nil {
		err = term.ErrInterrupted
	}
	return err
}

// fallBack chooses another mode if this system lacks the one that was asked for, and
// says why.
func (s *show) fallBack(ctx context.Context, service string) {
	var cannot error
	if s.Mode == handOver {
		p, err := handover.Config{Name: service}.Start(ctx)
		if err == nil {
			p.Close()
		} else if errors.Is(err, errors.ErrUnsupported) {
			s.Mode, cannot = naive, err
		}
	}
	if err := reuse.Port.Supported(); s.Mode == naive && errors.Is(err, errors.ErrUnsupported) {
		s.Mode, cannot = gap, cmp.Or(cannot, err)
	}
	if cannot != nil {
		s.Cannot = cannot.Error()
		s.screen.Textf("Mode %s instead: %v.", s.Mode, cannot)
	}
}

// wait lets a version serve for its time, and until it has answered both kinds of
// clients, or ctx ends.
func (s *show) wait(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	v := s.server.Version
	for begin := time.Now(); time.Since(begin) < serves || s.Fresh.answeredBy(v) == 0 || s.Kept.answeredBy(v) == 0; {
		if time.Since(begin) > 2*patience {
			return fmt.Errorf("version %d answers nothing", v)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// replace is one restart. It returns the process that runs.
func (s *show) replace(ctx context.Context, old *process) (*process, error) {
	begin := time.Now()
	if s.Mode == gap {
		if err := old.stop(); err != nil {
			return old, err
		}
	}
	next, err := s.start(ctx)
	if err != nil {
		return old, err
	}
	if s.Mode == handOver {
		err = old.wait() // it is told nothing
	} else {
		err = old.stop()
	}
	s.screen.Textf("version %d started, %d exited in %d ms", s.server.Version, s.server.Version-1, time.Since(begin).Milliseconds())
	return next, err
}

// A process runs one version of the server.
type process struct {
	address string
	stdin   io.Closer
	wait    func() error // for its end
}

// stop has the server stop, and waits for the end of its process.
func (p *process) stop() error {
	p.stdin.Close()
	return p.wait()
}

// start starts the next version, and returns when that is ready. A version that runs
// for a minute is killed.
func (s *show) start(ctx context.Context) (*process, error) {
	s.server.Version++
	config, err := json.Marshal(s.server)
	exe, noExe := os.Executable()
	limit, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(limit, exe)
	cmd.Env = append(os.Environ(), serverEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, noStdin := cmd.StdinPipe()
	stdout, noStdout := cmd.StdoutPipe()
	if err = errors.Join(err, noExe, noStdin, noStdout); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	p := &process{stdin: stdin, wait: sync.OnceValue(func() error { defer cancel(); return cmd.Wait() })}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		err = fmt.Errorf("version %d: %w", s.server.Version, cmp.Or(p.stop(), err))
		if ctx.Err() != nil || cmd.ProcessState.ExitCode() < 0 { // Ctrl-C, before it could ignore that
			err = fmt.Errorf("%w: %w", err, term.ErrInterrupted)
		}
		return nil, err
	}
	p.address = strings.TrimSpace(line)
	if s.Mode != handOver { // there each version asks for what the first one has asked for
		s.server.Address = p.address
	}
	return p, nil
}

// report prints the result.
func (s *show) report() error {
	if s.json {
		out := json.NewEncoder(s.stdout)
		out.SetIndent("", "  ")
		return out.Encode(s)
	}
	s.screen.Printf("\n          sent  answered  lost  slowest\n")
	because := ""
	for i, l := range []*load{&s.Fresh, &s.Kept} {
		kind := [...]string{"fresh", "kept"}[i]
		s.screen.Printf("%-5s %8s  %8s %5s %5.0f ms\n", kind, term.Number(l.Sent), term.Number(l.Answered), term.Number(l.Lost), l.Slowest)
		for _, reason := range slices.Sorted(maps.Keys(l.Reasons)) {
			because += fmt.Sprintf("%s, lost: %s %s\n", kind, term.Number(l.Reasons[reason]), reason)
		}
	}
	s.screen.Printf("%s\n", because)
	s.screen.Textf("%s", modes[s.Mode])
	return nil
}
