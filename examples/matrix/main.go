//go:build !android && !ios

// Programs for Android and iOS link only with cgo's toolchain.

// Matrix binds every pair of sockets to one port, on the running system: every
// pair of addresses, with every pair of option sets, for TCP and UDP. It prints
// which of the pairs the kernel lets be, and where that is not what the documented
// rules say.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"example.com/reuse/internal/semantics"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/matrix [-two] [-uid N] [-json] [-html file]
       go run ./examples/matrix -os name [-uid N] [-json] [-html file]

Binds two sockets to one port, on loopback: with each pair of addresses, each
set of options of either, TCP and UDP. It prints for which the system lets both
be, and compares that with the documented rules. It takes about a second.

Systems: Unix systems and Windows; -os shows the rules of any system on any
other, and how they are known.

Exit status: 0 if the system does what the rules say
  1    if it does not
  2    if this could not be done
  130  if it was interrupted
  (go run makes 1 of all but 0)

Examples:
  go run ./examples/matrix
  go run ./examples/matrix -os freebsd
  go run ./examples/matrix -json | grep EADDRINUSE
`

func main() {
	if as := os.Getenv(asSecond); as != "" {
		os.Exit(second(as))
	}
	passPipe()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	two  bool
	uid  int // -1: the user's own
	json bool
	html string
	os   string
}

func run(args []string, stdout, stderr io.Writer) int {
	return term.Exit("matrix", matrix(args, stdout), stderr)
}

func matrix(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("matrix", flag.ContinueOnError)
	o := options{uid: -1}
	flags.BoolVar(&o.two, "two", false, "make the second socket in a second process")
	flags.Func("uid", "make the second socket as user `N`, in a second process; needs root", func(value string) error {
		// The last number means nobody to the kernel: no change.
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 1<<32-1 || n > math.MaxInt {
			return errors.New("not the number of a user")
		}
		o.uid = int(n)
		return nil
	})
	flags.BoolVar(&o.json, "json", false, "print each pair as a line of JSON")
	flags.StringVar(&o.html, "html", "", "write a web page to `file`, too")
	flags.StringVar(&o.os, "os", "", "bind nothing; show the rules of the system `name`")
	if err := term.Parse(flags, help, args, stdout); err != nil {
		return err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	t, err := o.table(given, flags.Args())
	if err != nil {
		return err
	}
	if err := o.output(t, stdout); err != nil {
		return err
	}
	if n := t.differences(); n > 0 {
		return term.Not("%s from the rules", term.Count(n, "difference"))
	}
	return nil
}

// table measures or looks up what is asked for.
func (o *options) table(given map[string]bool, args []string) (*table, error) {
	switch {
	case len(args) > 0:
		return nil, term.Mistake("unexpected argument %q: there are only flags", args[0])
	case given["html"] && o.html == "":
		return nil, term.Mistake("-html needs the name of a file")
	case given["os"] && o.two:
		return nil, term.Mistake("-os binds nothing, so there is nothing to do for -two")
	case given["os"]:
		s, err := semantics.Find(o.os)
		if err != nil {
			return nil, term.Mistake("-os: %w", err)
		}
		second := user
		if o.uid >= 0 {
			second = o.uid
			if second == user {
				second++ // any other
			}
		}
		return predicted(s, second), nil
	}
	return measured(o.two, o.uid)
}

// output writes the page first: what is printed after it may go to a pipe that
// nobody reads to its end.
func (o *options) output(t *table, stdout io.Writer) error {
	if o.html != "" {
		page, err := t.html()
		if err == nil {
			err = replace(o.html, func(w io.Writer) error {
				_, err := w.Write(page)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("-html: %w", err)
		}
	}
	if o.json {
		var b bytes.Buffer
		lines := json.NewEncoder(&b)
		for _, r := range t.Rows {
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
		_, err := io.Copy(stdout, &b)
		return err
	}
	screen := term.New(stdout)
	t.print(screen)
	if o.html != "" {
		screen.Printf("The same is in %s.\n", o.html) // not broken into lines
	}
	return screen.Err()
}
