//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Exclusive holds a port that nobody else can take, and tries to take it: with
// every option that shares ports, on the same address and on the wildcards, from
// this process and from another one.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/exclusive [-address host:port] [-json]

Holds a port with Config{Exclusive: On} and tries to take it: with each option
that shares ports, on the same address and on the wildcards, from this process
and from another. What may bind beside the holder must get none of its
connections. Then it does the same to a listener that is not exclusive.

Systems: any address can be exclusive on Windows, Solaris and illumos; on Linux
a specific one such as 127.0.0.1 and [::], which takes both families, but not
0.0.0.0; a specific one, but no wildcard, on OpenBSD, NetBSD and macOS; and none
elsewhere, where this program says why.

Exit status: 0 if nobody took the address or its traffic
  1    if somebody did
  2    if this could not be done
  130  if it was interrupted
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/exclusive
  go run ./examples/exclusive -address [::]:8080
  go run ./examples/exclusive -json
`

const (
	// connections are made to find out who gets the traffic of an address.
	connections = 16

	// patience is for one connection, which takes no time on one machine.
	patience = 5 * time.Second
)

func main() {
	if os.Getenv(asIntruder) != "" {
		os.Exit(intrude(os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	return term.Exit("exclusive", exclusive(args, stdout, stderr), stderr)
}

func exclusive(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("exclusive", flag.ContinueOnError)
	address := flags.String("address", "127.0.0.1:0", "`address` to hold; port 0 is any free one")
	asJSON := flags.Bool("json", false, "print each attempt as a line of JSON, and no more")
	if err := term.Parse(flags, help, args, stdout); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return term.Mistake("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	host, _, err := net.SplitHostPort(*address)
	if err != nil {
		return term.Mistake("-address: %w; write it as in 127.0.0.1:8080 or [::1]:8080", err)
	}

	holder, err := serve("holder", reuse.Config{Exclusive: reuse.On}, *address)
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w (there is nothing to show; -h tells which systems can do it, and for which addresses)", err)
	} else if err != nil {
		return fmt.Errorf("%w (try another address with -address)", err)
	}
	defer holder.Close()

	sh := &show{screen: term.New(stdout), stderr: stderr}
	if *asJSON {
		sh.screen, sh.json = term.New(io.Discard), json.NewEncoder(stdout)
	}
	held, err := sh.run(holder, net.JoinHostPort(host, "0"))
	switch {
	case err != nil:
		return err
	case sh.screen.Err() != nil:
		return sh.screen.Err()
	case !held:
		return term.Not("the address was not exclusive: see %q", tookIt)
	}
	return nil
}

// A show prints who takes what.
type show struct {
	screen *term.Screen
	json   *json.Encoder // nil without -json
	stderr io.Writer
}

// run lets everybody try to take the holder's address, and tells whether it stayed
// the holder's. Then it does the same to a listener on another port that shares.
func (s *show) run(holder *server, another string) (held bool, err error) {
	other, err := startOther(s.stderr)
	if err != nil {
		return false, fmt.Errorf("cannot start another process: %w", err)
	}
	defer other.Close()
	this := &intruder{}
	defer this.Close()

	s.screen.Textf("%v is held with %v. This process and another one try to take it.", holder.Addr(), holder.config)
	s.screen.Printf("\n")
	t, err := s.attack(holder, this, other)
	if err != nil {
		return false, err
	}
	t.print(s.screen, refused, besideIt, tookIt, untried)
	verdict := "It was not exclusive"
	if held = t.count(tookIt) == 0; held {
		verdict = "Nobody took it or its traffic"
	}
	s.screen.Printf("\n")
	s.screen.Textf("%s. Attempts: %s.", verdict, t.tally(refused, besideIt, tookIt, untried))

	shared := reuse.Config{Port: reuse.On}
	if reuse.Port.Supported() != nil {
		shared = reuse.Config{Addr: reuse.On}
	}
	sharer, err := serve("holder", shared, another)
	if err != nil {
		return held, err
	}
	defer sharer.Close()
	s.screen.Printf("\n")
	s.screen.Textf("For contrast, %v is held with %v.", sharer.Addr(), sharer.config)
	s.screen.Printf("\n")
	if t, err = s.attack(sharer, this, other); err != nil {
		return held, err
	}
	if t.count(besideIt)+t.count(tookIt) > 0 {
		t.print(s.screen, besideIt, tookIt)
		s.screen.Printf("\n")
	}
	s.screen.Textf("Attempts: %s.", t.tally(refused, besideIt, tookIt, untried))
	return held, nil
}

// A server tells its name to everybody who connects.
type server struct {
	net.Listener
	name   string
	config reuse.Config
	done   sync.WaitGroup
}

// serve listens, and answers until the server is closed.
func serve(name string, c reuse.Config, address string) (*server, error) {
	l, err := c.Listen(context.Background(), network(address), address)
	if err != nil {
		return nil, err
	}
	s := &server{Listener: l, name: name, config: c}
	s.done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil { // closed
				return
			}
			s.greet(conn)
		}
	})
	return s, nil
}

func (s *server) greet(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return
	}
	if _, err := fmt.Fprintln(conn, s.name); err != nil {
		return
	}
	// The client closes first: TIME_WAIT is then on its port, where it is in
	// nobody's way.
	_, _ = io.Copy(io.Discard, conn)
}

// Close frees the address and ends the goroutine.
func (s *server) Close() error {
	err := s.Listener.Close()
	s.done.Wait()
	return err
}

// network keeps 0.0.0.0 to IPv4. For "tcp" package net makes any wildcard a
// dual-stack one.
func network(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// A bid is one attempt to take an address.
type bid struct {
	Address string // "" frees what the last bid got
	Options string
	Config  reuse.Config
}

// bids returns all the attempts on a holder's address.
func bids(holder netip.AddrPort) (list []bid) {
	ips := []netip.Addr{holder.Addr()}
	add := func(ip netip.Addr) {
		if ip != holder.Addr() {
			ips = append(ips, ip)
		}
	}
	if holder.Addr().Is4() || holder.Addr().IsUnspecified() {
		add(netip.IPv4Unspecified())
	}
	add(netip.IPv6Unspecified()) // which takes IPv4, too, on most systems
	if holder.Addr().IsUnspecified() {
		add(netip.MustParseAddr("127.0.0.1"))
	}
	if holder.Addr() == netip.IPv6Unspecified() {
		add(netip.IPv6Loopback())
	}
	for _, ip := range ips {
		// Package net sets Addr on listeners by itself, except on Windows.
		for _, b := range []bid{
			{Options: "none", Config: reuse.Config{Addr: reuse.Off}},
			{Options: "Addr", Config: reuse.Config{Addr: reuse.On}},
			{Options: "Port", Config: reuse.Config{Addr: reuse.Off, Port: reuse.On}},
			{Options: "Addr, Port", Config: reuse.Config{Addr: reuse.On, Port: reuse.On}},
			{Options: "PortLB", Config: reuse.Config{Addr: reuse.Off, PortLB: reuse.On}},
		} {
			b.Address = netip.AddrPortFrom(ip, holder.Port()).String()
			list = append(list, b)
		}
	}
	return list
}

// An outcome is what became of a bid.
type outcome struct {
	Result string
	Said   string // by the kernel, or about the system
}

// The results of a bid.
const (
	refused  = "refused"   // by bind or listen
	untried  = "untried"   // the system has no such option, or no IPv6
	bound    = "bound"     // and who gets the traffic is to be found out:
	besideIt = "beside it" // the holder still does
	tookIt   = "took it"   // not the holder alone
)

// An intruder tries to take addresses, one at a time.
type intruder struct{ server *server }

func (in *intruder) try(b bid) (outcome, error) {
	if err := in.Close(); err != nil || b.Address == "" {
		return outcome{}, err
	}
	s, err := serve("intruder", b.Config, b.Address)
	var sys *os.SyscallError
	switch {
	case err == nil:
		in.server = s
		return outcome{Result: bound}, nil
	case errors.Is(err, errors.ErrUnsupported):
		return outcome{untried, "no such option on " + runtime.GOOS}, nil
	case !errors.As(err, &sys):
	case sys.Syscall == "bind" || sys.Syscall == "listen":
		return outcome{refused, sys.Err.Error()}, nil
	case sys.Syscall == "socket" && b.Address[0] == '[':
		return outcome{untried, "no IPv6: " + sys.Err.Error()}, nil
	}
	return outcome{}, err
}

// Close frees what the intruder has.
func (in *intruder) Close() error {
	if in.server == nil {
		return nil
	}
	err := in.server.Close()
	in.server = nil
	return err
}

// asIntruder is set in the environment of the other process.
const asIntruder = "REUSE_EXCLUSIVE_INTRUDER"

// intrude is the other process: it reads bids and writes outcomes until its
// standard input ends, which it does when the first process does.
func intrude(stdin io.Reader, stdout, stderr io.Writer) int {
	in := &intruder{}
	defer in.Close()
	requests, replies := json.NewDecoder(stdin), json.NewEncoder(stdout)
	for {
		var b bid
		err := requests.Decode(&b)
		if errors.Is(err, io.EOF) {
			return 0
		}
		var o outcome
		if err == nil {
			o, err = in.try(b)
		}
		if err == nil {
			err = replies.Encode(o)
		}
		if err != nil {
			fmt.Fprintf(stderr, "exclusive: the other process: %v\n", err)
			return 1
		}
	}
}

// An otherProcess is an intruder in a process of its own.
type otherProcess struct {
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	requests *json.Encoder
	replies  *json.Decoder
}

func startOther(stderr io.Writer) (*otherProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asIntruder+"=1")
	cmd.Stderr = stderr
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
	return &otherProcess{cmd, stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)}, nil
}

func (p *otherProcess) try(b bid) (o outcome, err error) {
	if err = p.requests.Encode(b); err == nil {
		err = p.replies.Decode(&o)
	}
	if err != nil {
		err = fmt.Errorf("the other process does not answer: %w", err)
	}
	return o, err
}

// Close ends the other process and waits for it.
func (p *otherProcess) Close() error {
	return errors.Join(p.stdin.Close(), p.cmd.Wait())
}

// attack lets both processes make every bid on the holder's address.
func (s *show) attack(holder *server, this *intruder, other *otherProcess) (t table, err error) {
	at := addrPort(holder.Addr().String())
	for _, b := range bids(at) {
		for _, process := range []struct {
			name string
			try  func(bid) (outcome, error)
		}{{"this", this.try}, {"other", other.try}} {
			o, err := process.try(b)
			if err != nil {
				return nil, err
			}
			r := row{bid: b, process: process.name, outcome: o}
			if o.Result == bound {
				r.made = connections
				if r.reached, err = reached(target(at, addrPort(b.Address)), holder.name); err != nil {
					return nil, fmt.Errorf("with a socket on %s (%s) a connection got lost: %w", b.Address, b.Options, err)
				}
				if r.Result = besideIt; r.reached < connections || addrPort(b.Address) == at {
					r.Result = tookIt
				}
			}
			if _, err := process.try(bid{}); err != nil {
				return nil, err
			}
			t = append(t, r)
			if s.json == nil {
				continue
			}
			if err := s.json.Encode(r.attempt(holder)); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func addrPort(s string) netip.AddrPort {
	a := netip.MustParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// target is an address that belongs to the holder and that a bid could take.
func target(holder, bid netip.AddrPort) string {
	ip := bid.Addr()
	if ip.IsUnspecified() {
		ip = holder.Addr()
	}
	if ip.IsUnspecified() {
		ip = netip.IPv6Loopback()
		if holder.Addr().Is4() || bid.Addr().Is4() {
			ip = netip.MustParseAddr("127.0.0.1")
		}
	}
	return netip.AddrPortFrom(ip, holder.Port()).String()
}

// reached connects several times and counts the answers that have a name.
func reached(address, name string) (n int, err error) {
	for range connections {
		who, err := ask(address)
		if err != nil {
			return n, err
		}
		if who == name {
			n++
		}
	}
	return n, nil
}

// ask connects to an address and returns who answers.
func ask(address string) (name string, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// A table is what became of all the bids.
type table []row

// A row is one bid, or in print the same by both processes if both fared alike.
type row struct {
	bid
	process string
	outcome
	made    int // connections, if bound
	reached int // the holder, of those
}

// An attempt is a row of one bid in JSON.
type attempt struct {
	OS          string `json:"os"`
	Holder      string `json:"holder"`      // its address
	HeldWith    string `json:"held_with"`   // its Config
	Address     string `json:"address"`     // of the other socket
	Options     string `json:"options"`     // of the other socket
	By          string `json:"by"`          // this process or the other
	Result      string `json:"result"`      // refused, beside it, took it or untried
	Said        string `json:"said"`        // by the kernel, or about the system
	Connections int    `json:"connections"` // that were made, if it was bound
	HolderGot   int    `json:"holder_got"`  // of those
}

func (r row) attempt(holder *server) attempt {
	return attempt{
		runtime.GOOS, holder.Addr().String(), holder.config.String(),
		r.Address, r.Options, r.process, r.Result, r.Said, r.made, r.reached,
	}
}

// merged has one row where both processes fared alike.
func (t table) merged() (list table) {
	for _, r := range t {
		if n := len(list); n > 0 && list[n-1].bid == r.bid && list[n-1].outcome == r.outcome {
			last := &list[n-1]
			last.process = "both"
			last.made += r.made
			last.reached += r.reached
			continue
		}
		list = append(list, r)
	}
	return list
}

// print prints the rows that have one of the results.
func (t table) print(s *term.Screen, results ...string) {
	const format = "  %-10s  %-5s  %-9s  %s\n"
	columns, _ := s.Size()
	room := min(columns-1-32, 32) // in the last column
	s.Printf(format, "options", "by", "result", "said")
	var address string
	var notes []string
	for _, r := range t.merged() {
		if !slices.Contains(results, r.Result) {
			continue
		}
		if r.Address != address {
			address = r.Address
			s.Printf("%s\n", address)
		}
		said := r.Said
		if r.made > 0 {
			said = fmt.Sprintf("bound; holder got %d of %d", r.reached, r.made)
		}
		if len(said) > room { // Windows says it in long sentences
			if !slices.Contains(notes, said) {
				notes = append(notes, said)
			}
			said = fmt.Sprintf("note %d", slices.Index(notes, said)+1)
		}
		s.Printf(format, r.Options, r.process, r.Result, said)
	}
	for i, note := range notes {
		s.Indentf("  ", "Note %d: %s", i+1, note)
	}
	if t.count(besideIt)+t.count(tookIt) > 0 {
		s.Indentf("  ", "Each bind that succeeded was tested with %d connections.", connections)
	}
}

// count returns how many attempts had a result.
func (t table) count(result string) (n int) {
	for _, r := range t {
		if r.Result == result {
			n++
		}
	}
	return n
}

// tally counts results, as in "28 refused, 2 untried".
func (t table) tally(results ...string) string {
	var list []string
	for _, result := range results {
		if n := t.count(result); n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, result))
		}
	}
	return strings.Join(list, ", ")
}
