//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Whoholds says which sockets and processes an address is in use by, what would refuse
// another socket there, and what would be admitted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"example.com/reuse"
	"example.com/reuse/internal/term"
	"example.com/reuse/inuse"
)

const help = `Usage: go run ./examples/whoholds [-network tcp] [-json] ADDRESS

Shows which sockets overlap an address such as 127.0.0.1:8080 or :8080,
listening or not, and whose they are; by which rule of the kernel they would
refuse another one; and what works instead. For a Unix socket the address is
its path. It binds nothing there.

Systems: on Linux it sees the sockets of its network namespace, and the
processes of its own user, or as root of all. On Windows it sees the sockets
and processes of all users. Elsewhere it fails, and the error says so.

Exit status: 0 if the address is held, or something else refuses a bind
  1    if it is free
  2    if that could not be found out
  130  if it was interrupted
  (go run makes 1 of all but 0, so a script builds the program first)

Examples:
  go run ./examples/whoholds 127.0.0.1:8080
  go run ./examples/whoholds -network udp :53
  go run ./examples/whoholds -network unix /run/app.sock
  go run ./examples/whoholds -json 8080
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	held, err := whoholds(args, stdout)
	if err == nil && !held {
		return term.No
	}
	return term.Exit("whoholds", err, stderr)
}

func whoholds(args []string, stdout io.Writer) (held bool, err error) {
	flags := flag.NewFlagSet("whoholds", flag.ContinueOnError)
	network := flags.String("network", "tcp", "`network` of the address: tcp, tcp4, udp6, unix, ...")
	program := flags.Bool("json", false, "print a line of JSON, for a program")
	if err := term.Parse(flags, help, args, stdout); err != nil {
		return false, err
	}
	if flags.NArg() != 1 {
		return false, term.Mistake("one address is wanted, such as 127.0.0.1:8080")
	}
	address := flags.Arg(0)
	if _, err := strconv.ParseUint(address, 10, 16); err == nil { // a port
		address = ":" + address
	}
	report, err := inuse.Check(context.Background(), reuse.Config{}, *network, address)
	if err != nil {
		// It may hold what a terminal would obey.
		return false, errors.New(strings.Trim(strconv.QuoteToGraphic(err.Error()), `"`))
	}
	if *program {
		err = printJSON(stdout, report)
	} else {
		err = show(term.New(stdout), report)
	}
	return len(report.Holders) > 0 || !report.Free, err
}

// show prints a report with its paragraphs filled to the screen.
func show(s *term.Screen, r *inuse.Report) error {
	sockets := *r
	sockets.Reason, sockets.Advice = "", nil
	s.Printf("%v\n", &sockets)
	s.Textf("%s", r.Reason)
	for i, a := range r.Advice {
		if i == 0 {
			s.Printf("\n")
		}
		s.Textf("- %s", a)
	}
	return s.Err()
}

// A record is a holder in JSON. What is not known is left out.
type record struct {
	Network string          `json:"network"`
	State   string          `json:"state"`
	Local   *netip.AddrPort `json:"local,omitempty"`
	Remote  *netip.AddrPort `json:"remote,omitempty"`
	Path    string          `json:"path,omitempty"`
	Device  string          `json:"device,omitempty"`
	UID     *int            `json:"uid,omitempty"`
	PID     int             `json:"pid,omitempty"`
	Command string          `json:"command,omitempty"`
}

// printJSON prints a report as one line of JSON, in ASCII: a command's name may hold
// what a terminal would obey.
func printJSON(w io.Writer, r *inuse.Report) error {
	out := struct {
		Network string   `json:"network"`
		Address string   `json:"address"`
		Free    bool     `json:"free"`
		Holders []record `json:"holders"`
		Reason  string   `json:"reason"`
		Advice  []string `json:"advice,omitempty"`
	}{r.Network, r.Address, r.Free, []record{}, r.Reason, r.Advice}
	for _, h := range r.Holders {
		rec := record{Network: h.Network, State: h.State, Path: h.Path, Device: h.Device, PID: h.PID, Command: h.Command}
		if h.Local.IsValid() {
			rec.Local = &h.Local
		}
		if h.Remote.IsValid() {
			rec.Remote = &h.Remote
		}
		if h.UID >= 0 {
			rec.UID = &h.UID
		}
		out.Holders = append(out.Holders, rec)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, c := range string(text) {
		switch {
		case c < 0x7f:
			b.WriteRune(c)
		case c > 0xffff: // two halves, as in UTF-16
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	_, err = fmt.Fprintln(w, b.String())
	return err
}
