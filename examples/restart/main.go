//go:build !android && !ios

// Restart restarts a server under load and counts the requests that are lost.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/restart [flags]

Restarts a server under load, and counts the requests that are answered and
lost. Each version is a process. This process sends the load: half of the
clients open a connection for each request (fresh), half keep theirs (kept).

Modes:
  handover  the next version takes the sockets of the running one, which then
            exits by itself; nothing signals it
  naive     both share the port; when the next version listens, the old one
            shuts down, which loses the connections in its queue
  gap       the old version stops, then the next one listens

Without a hand-over (not Unix) the mode is naive, and where processes cannot
share a port (Windows, illumos) it is gap.

Exit status: 0 if all restarts were done, whatever is lost; 2 if not.

`

const (
	patience = 5 * time.Second        // for a request
	serves   = 300 * time.Millisecond // each version, before the next one starts
	interval = 4 * time.Millisecond   // between two requests of a client
)

// A server is one version of the server.
type server struct {
	Version          int
	Network, Address string
	Name             string       // of the service, if the next version takes the sockets
	Options          reuse.Config // of the sockets
}

// run prints the address when the server is ready. It serves until the server is replaced
// or ctx ends.
func (s server) run(ctx context.Context) error {
	if s.Network == "udp" {
		return s.answerDatagrams(ctx)
	}
	srv := &http.Server{Addr: s.Address, ReadHeaderTimeout: patience}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.Version) })
	if s.Name != "" {
		h := handoverhttp.Server{HTTP: srv, Name: s.Name}
		h.OnReady = func(_ *handover.Process, l net.Listener) { fmt.Println(l.Addr()) }
		return h.Run(ctx)
	}
	l, err := s.Options.Listen(ctx, s.Network, s.Address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() { _ = srv.Serve(l) }() // until Shutdown
	<-ctx.Done()
	return srv.Shutdown(context.Background())
}

func (s server) answerDatagrams(ctx context.Context) error {
	p, err := handover.Config{Name: s.Name}.Start(ctx) // without a Name nothing is handed over
	if err != nil {
		return err
	}
	defer p.Close()
	conn, err := p.ListenPacket(ctx, s.Options, s.Network, s.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := p.Ready(ctx); err != nil {
		return err
	}
	fmt.Println(conn.LocalAddr())
	go func() {
		select {
		case <-p.Replaced():
		case <-ctx.Done():
		}
		_ = conn.SetReadDeadline(time.Now()) // the next version reads the rest
	}()
	for buf := make([]byte, 100); ; {
		_, client, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err == nil {
			_, err = conn.WriteTo([]byte(strconv.Itoa(s.Version)), client)
		}
		if err != nil {
			return err
		}
	}
}

// A load is what has become of the requests of some clients.
type load struct {
	mu        sync.Mutex
	Sent      int            `json:"sent"`
	Answered  int            `json:"answered"`
	Lost      int            `json:"lost"`
	ByVersion map[int]int    `json:"answered_by_version"`
	Reasons   map[string]int `json:"lost_by_reason"`
}

func newLoad() *load { return &load{ByVersion: map[int]int{}, Reasons: map[string]int{}} }

// send sends one request after the other until ctx ends, and waits for the last answer.
func (l *load) send(ctx context.Context, ask func() (string, error)) {
	for tick := time.Tick(interval); ctx.Err() == nil; <-tick {
		answer, err := ask()
		version := 0
		if err == nil {
			version, err = strconv.Atoi(answer)
		}
		l.mu.Lock()
		l.Sent++
		if err == nil {
			l.Answered++
			l.ByVersion[version]++
		} else {
			l.Lost++
			l.Reasons[term.Reason(err)]++
		}
		l.mu.Unlock()
	}
}

func (l *load) answeredBy(version int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ByVersion[version] > 0
}

// newClient returns a function that sends a request and returns the answer.
func newClient(network, address string, keep bool) func() (string, error) {
	if network != "udp" {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: patience}
		return func() (string, error) {
			// A POST, because net/http sends a GET again if a kept connection is closed.
			resp, err := client.Post("http://"+address, "text/plain", nil)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
			return string(body), err
		}
	}
	var conn net.Conn // one for each datagram, or for all
	return func() (answer string, err error) {
		if conn == nil || !keep {
			if conn, err = net.Dial(network, address); err != nil {
				return "", err
			}
		}
		if !keep {
			defer conn.Close()
		}
		_ = conn.SetDeadline(time.Now().Add(patience)) // fails on a closed one
		if _, err := conn.Write([]byte("hello")); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		return string(buf[:n]), err
	}
}

// A result is what -json prints.
type result struct {
	Mode     string `json:"mode"`
	Network  string `json:"network"`
	Clients  int    `json:"clients"`
	Restarts int    `json:"restarts"`
	Fresh    *load  `json:"fresh"`
	Kept     *load  `json:"kept"`
}

func main() {
	term.Child(func(ctx context.Context, s server) error { return s.run(ctx) })
	mode := flag.String("mode", "handover", "`mode`: handover, naive or gap")
	network := flag.String("network", "tcp4", "`network`: tcp, tcp4, tcp6 or udp")
	restarts := flag.Int("restarts", 10, "`number` of restarts")
	clients := flag.Int("clients", 32, "`number` of clients, at least 2")
	asJSON := flag.Bool("json", false, "print the result as JSON, and nothing else")
	term.Main(help, 0, func() error {
		switch {
		case !slices.Contains([]string{"handover", "naive", "gap"}, *mode):
			return fmt.Errorf("-mode %q: give handover, naive or gap", *mode)
		case addresses[*network] == "":
			return fmt.Errorf("-network %q: give tcp, tcp4, tcp6 or udp", *network)
		case *restarts < 1 || *clients < 2:
			return errors.New("give at least 1 for -restarts, and 2 for -clients")
		}
		r := result{possible(*mode), *network, *clients, *restarts, newLoad(), newLoad()}
		if *asJSON {
			term.Out = io.Discard
		}
		if err := r.run(); err != nil || !*asJSON {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	})
}

// service is the Name by which the versions find each other.
var service = fmt.Sprintf("restart-%d", os.Getpid())

var addresses = map[string]string{"tcp": ":0", "tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "udp": "127.0.0.1:0"}

// possible returns a mode, or another one if this system lacks it.
func possible(mode string) string {
	p, err := handover.Config{Name: service}.Start(context.Background())
	if err == nil {
		p.Close()
	}
	if mode == "handover" && errors.Is(err, errors.ErrUnsupported) {
		mode = "naive"
	}
	if mode == "naive" && errors.Is(reuse.Port.Supported(), errors.ErrUnsupported) {
		mode = "gap"
	}
	return mode
}

func (r *result) run() error {
	s := server{Version: 1, Network: r.Network, Address: addresses[r.Network]}
	switch r.Mode {
	case "handover":
		s.Name = service
	case "naive":
		s.Options.Port = reuse.On
	}
	running, err := term.Start(s)
	if err != nil {
		return err
	}
	term.Say("%d restarts of a server at %s, mode %s. %d clients send requests, half of them on fresh connections and half on kept ones.",
		r.Restarts, running.Line, r.Mode, r.Clients)
	term.Say("")
	ctx, stopLoad := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for i := range r.Clients {
		l, keep := r.Fresh, i%2 == 1
		if keep {
			l = r.Kept
		}
		ask := newClient(r.Network, running.Line, keep)
		clients.Go(func() { l.send(ctx, ask) })
	}
	for err = r.wait(1); err == nil && s.Version <= r.Restarts; {
		s.Version++
		if r.Mode != "handover" { // there each version asks for what the first one asks for
			s.Address = running.Line
		}
		if running, err = r.replace(running, s); err == nil {
			err = r.wait(s.Version)
		}
	}
	stopLoad()
	clients.Wait()
	r.print()
	if err == nil {
		err = running.Stop()
	}
	return err // a server that still runs exits with this process
}

// replace is one restart. It returns the new process.
func (r *result) replace(old *term.Process, s server) (*term.Process, error) {
	if r.Mode == "gap" {
		if err := old.Stop(); err != nil {
			return nil, err
		}
	}
	next, err := term.Start(s)
	if err != nil {
		return nil, err
	}
	switch r.Mode {
	case "handover":
		err = old.Wait() // nothing tells it to exit
	case "naive":
		err = old.Stop()
	}
	term.Say("version %d started, %d exited", s.Version, s.Version-1)
	return next, err
}

// wait lets a version serve for its time, and until it has answered clients of both kinds.
func (r *result) wait(version int) error {
	for begin := time.Now(); time.Since(begin) < serves || !r.Fresh.answeredBy(version) || !r.Kept.answeredBy(version); {
		if time.Since(begin) > 2*patience {
			return fmt.Errorf("version %d answers nothing", version)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func (r *result) print() {
	term.Say("")
	table := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tsent\tanswered\tlost\t")
	var because strings.Builder
	for i, l := range []*load{r.Fresh, r.Kept} {
		kind := []string{"fresh", "kept"}[i]
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t\n", kind, l.Sent, l.Answered, l.Lost)
		for reason, n := range l.Reasons {
			fmt.Fprintf(&because, "%s, lost: %d %s\n", kind, n, reason)
		}
	}
	table.Flush()
	fmt.Fprint(term.Out, because.String())
}
