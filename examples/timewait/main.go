//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Timewait shows what a server leaves in the kernel when it stops, and who may
// listen on its port then: after connections that it closed (TIME_WAIT), and
// beside a child process that still serves one (ESTABLISHED).
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
	"runtime"
	"slices"
	"strings"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/timewait [-json]

Two servers stop, and their ports are listened on again:

1. One has closed a connection before. The kernel keeps its endpoint in
   TIME_WAIT for 30 to 240 s, but for connections within the machine NetBSD
   only 2 s, and FreeBSD not at all.
2. One has left a connection to a child process, which still serves it:
   ESTABLISHED.

Each is done with every option of the old listener and of the new one. A table
says which of them bind.

Systems: all that have processes. What the kernel keeps is read on Linux,
elsewhere netstat shows it. On Windows and Plan 9 the connection of the second
server stays in this process. Not js and wasip1.

Exit status: 0 if all could be tried
  2    if it could not
  130  if it was interrupted
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/timewait
  go run ./examples/timewait -json
`

// patience is for what takes no time on one machine.
const patience = 5 * time.Second

// configs are what the old and the new listener are opened with. Package net
// would set Addr by itself, except on Windows.
var configs = [...]struct {
	name   string
	config reuse.Config
}{
	{"Addr Off", reuse.Config{Addr: reuse.Off}},
	{"Addr On", reuse.Config{Addr: reuse.On}},
	{"Port On", reuse.Config{Addr: reuse.Off, Port: reuse.On}},
	{"Exclusive On", reuse.Config{Exclusive: reuse.On}},
}

func main() {
	if os.Getenv(asChild) != "" {
		os.Exit(child(os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	return term.Exit("timewait", timewait(args, stdout), stderr)
}

func timewait(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("timewait", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print each attempt as a line of JSON")
	if err := term.Parse(flags, help, args, stdout); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return term.Mistake("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		return errors.New("there is no network in " + runtime.GOOS + " that could keep anything")
	}

	screen := term.New(stdout)
	for _, s := range []struct {
		name  string
		leave func(*server) (leftover, error)
		title string
		note  string
	}{
		{"closed", leaveTimeWait, "1. The old server closed a connection, then its listener.", localNote()},
		{"child", leaveChild, "2. The old server left a connection to " + heir + ", and closed its listener.",
			"The connection was served before and after."},
	} {
		t, err := try(s.leave)
		if err != nil {
			return err
		}
		if *asJSON {
			out := json.NewEncoder(stdout)
			for _, a := range t {
				a.Scenario = s.name
				if err := out.Encode(a); err != nil {
					return err
				}
			}
			continue
		}
		screen.Textf("%s", s.title)
		t.print(screen, s.note)
	}
	if *asJSON {
		return nil
	}
	if runtime.GOOS != "windows" {
		screen.Textf("Package net sets Addr on every listener here, so a Go server can do at once what it says above for Addr On after Addr On.")
	}
	return screen.Err()
}

// An attempt is one new listener on the port of an old one.
type attempt struct {
	OS       string `json:"os"`
	Scenario string `json:"scenario"`
	Old      string `json:"old"`
	New      string `json:"new"`
	Left     []left `json:"left"`            // by the old one, where it can be read
	Outcome  string `json:"outcome"`         // one of those below
	Error    string `json:"error,omitempty"` // the kernel's, or what is missing
}

const (
	listens     = "listens"
	refused     = "refused"
	unsupported = "-"
)

// left is an endpoint that is left in the kernel, as netstat shows it.
type left struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	State  string         `json:"state"`
}

// A leftover is what goes on after the old listener.
type leftover interface {
	check() error // that it is still there
	Close() error
}

// try lets each old listener leave something behind, once for each new one, as
// what a new one does to the port could change the next one's luck.
func try(leave func(*server) (leftover, error)) (t table, err error) {
	for _, before := range configs {
		for _, after := range configs {
			a := attempt{OS: runtime.GOOS, Old: before.name, New: after.name}
			if err := a.make(before.config, after.config, leave); err != nil {
				return nil, fmt.Errorf("%s, then %s: %w", before.name, after.name, err)
			}
			t = append(t, a)
		}
	}
	return t, nil
}

func (a *attempt) make(before, after reuse.Config, leave func(*server) (leftover, error)) (err error) {
	old, err := listen(before, "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		a.Outcome, a.Error = unsupported, err.Error()
		return nil
	} else if err != nil {
		return err
	}
	address := old.Addr().String()
	rest, err := leave(&server{old})
	if err := errors.Join(err, old.Close()); err != nil {
		if rest != nil {
			err = errors.Join(err, rest.Close())
		}
		return err
	}
	defer func() { err = errors.Join(err, rest.Close()) }()
	if a.Left, err = held(old.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		return err
	}

	l, err := listen(after, address)
	var sys *os.SyscallError
	switch {
	case err == nil:
		a.Outcome = listens
		err = l.Close()
	case errors.Is(err, errors.ErrUnsupported):
		a.Outcome, a.Error, err = unsupported, err.Error(), nil
	case errors.As(err, &sys) && (sys.Syscall == "bind" || sys.Syscall == "listen"):
		a.Outcome, a.Error, err = refused, sys.Error(), nil
	}
	return errors.Join(err, rest.check())
}

func listen(c reuse.Config, address string) (net.Listener, error) {
	return c.Listen(context.Background(), "tcp4", address)
}

// A server is an old listener.
type server struct{ net.Listener }

// connect returns both ends of a connection to the server.
func (s *server) connect() (client, accepted *net.TCPConn, err error) {
	c, err := net.DialTimeout("tcp4", s.Addr().String(), patience)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.Accept() // it waits already
	if err == nil {
		deadline := time.Now().Add(patience)
		err = errors.Join(c.SetDeadline(deadline), a.SetDeadline(deadline))
	}
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), a.(*net.TCPConn), nil
}

// leaveTimeWait closes a connection first, on the server's side. That is where
// TIME_WAIT then is.
func leaveTimeWait(s *server) (leftover, error) {
	client, accepted, err := s.connect()
	if err != nil {
		return nil, err
	}
	err = accepted.Close()
	_, readErr := io.Copy(io.Discard, client) // until the server's FIN is here
	return nothing{}, errors.Join(err, readErr, client.Close())
}

// nothing is left but what the kernel keeps.
type nothing struct{}

func (nothing) check() error { return nil }
func (nothing) Close() error { return nil }

// leaveChild has a child serve a connection of which the server keeps nothing.
func leaveChild(s *server) (leftover, error) {
	client, accepted, err := s.connect()
	if err != nil {
		return nil, err
	}
	wait, err := startChild(accepted)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	c := &served{client, bufio.NewReader(client), wait}
	return c, c.check()
}

// served is the client's end of a connection that a child serves until it ends.
type served struct {
	*net.TCPConn
	in   *bufio.Reader
	wait func() error // for the child
}

// check asks the child something.
func (c *served) check() error {
	const question = "are you there?\n"
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	answer, err := c.in.ReadString('\n')
	if err == nil && answer != question {
		err = fmt.Errorf("the child answered %q", answer)
	}
	if err != nil {
		err = fmt.Errorf("the connection is not served any more: %w", err)
	}
	return err
}

// Close ends the connection, and with it the child.
func (c *served) Close() error { return errors.Join(c.TCPConn.Close(), c.wait()) }

// asChild is set in the environment of a child process.
const asChild = "REUSE_TIMEWAIT_CHILD"

// serve sends back what comes, until the client closes.
func serve(conn net.Conn) error {
	_, err := io.Copy(conn, conn)
	return errors.Join(err, conn.Close())
}

// A table is the attempts of all pairs of listeners.
type table []attempt

func (t table) outcome(before, after string) string {
	for _, a := range t {
		if a.Old == before && a.New == after {
			return a.Outcome
		}
	}
	return ""
}

func (t table) print(s *term.Screen, note string) {
	s.Printf("\n")
	if i := slices.IndexFunc(t, func(a attempt) bool { return len(a.Left) > 0 }); i >= 0 {
		s.Indentf("  ", "The kernel keeps, with another port for each attempt:")
		for _, l := range t[i].Left {
			s.Indentf("    ", "tcp %v %v %s", l.Local, l.Remote, s.Paint(term.Cyan, l.State))
		}
	} else {
		s.Indentf("  ", "What the kernel keeps is shown by netstat -an.")
	}
	s.Printf("\n")
	if columns, _ := s.Size(); columns > tableWidth {
		t.grid(s)
	} else {
		t.list(s)
	}
	var said []string
	for _, a := range t {
		if a.Error != "" && !slices.Contains(said, a.Outcome+": "+a.Error) {
			said = append(said, a.Outcome+": "+a.Error)
		}
	}
	s.Printf("\n")
	for _, line := range said {
		s.Textf("%s.", line)
	}
	s.Textf("%s", strings.TrimSpace(t.lesson()+" "+note))
	s.Printf("\n")
}

// tableWidth is how many columns a grid takes.
const tableWidth = 2 + 14 + len(configs)*(2+12)

// grid prints a row for each old listener and a column for each new one.
func (t table) grid(s *term.Screen) {
	s.Printf("  %-14s  The new one:\n", "The old one:")
	s.Printf("  %-14s", "")
	for _, c := range configs {
		s.Printf("  %-12s", c.name)
	}
	s.Printf("\n")
	for _, before := range configs {
		s.Printf("  %-14s", before.name)
		for i, after := range configs {
			cell := fmt.Sprintf("%-12s", t.outcome(before.name, after.name))
			if i == len(configs)-1 {
				cell = strings.TrimRight(cell, " ")
			}
			if strings.HasPrefix(cell, refused) {
				cell = s.Paint(term.Red, cell)
			}
			s.Printf("  %s", cell)
		}
		s.Printf("\n")
	}
}

// list prints a line for each pair of listeners.
func (t table) list(s *term.Screen) {
	for _, before := range configs {
		s.Indentf("  ", "After %s:", before.name)
		for _, after := range configs {
			outcome := t.outcome(before.name, after.name)
			if outcome == refused {
				outcome = s.Paint(term.Red, outcome)
			}
			s.Printf("    %-12s  %s\n", after.name, outcome)
		}
	}
}

// lesson says what the table shows of Addr.
func (t table) lesson() string {
	can := func(before, after string) bool { return t.outcome(before, after) == listens }
	switch {
	case can("Addr Off", "Addr Off"):
		return "It needs no option here to listen again."
	case can("Addr Off", "Addr On"):
		return "Addr On is enough on the new listener."
	case can("Addr On", "Addr On"):
		text := "What the old listener left keeps its options, so both need Addr On"
		if can("Port On", "Port On") {
			text += ", or both Port On"
		}
		return text + "."
	}
	return "Addr On does not help here."
}
