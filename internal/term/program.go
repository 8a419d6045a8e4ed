package term

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
)

// The exit statuses that all examples have in common.
const (
	OK          = 0
	No          = 1   // it is not as it should be
	Failed      = 2   // it could not be done
	Interrupted = 130 // as for a program that Ctrl-C ends
)

var (
	// ErrNo is wrapped by the error of a program that has done its work and found
	// that something is not as it should be.
	ErrNo = errors.New("not as it should be")

	// ErrInterrupted is the error of a program that was told to stop before its end.
	ErrInterrupted = errors.New("interrupted")

	errMistake = errors.New("a mistake in the command line")
)

// A note is an error whose kind the text does not tell.
type note struct {
	error
	kind error
}

func (n *note) Unwrap() []error { return []error{n.error, n.kind} }

// Mistake returns the error for a command line that makes no sense.
func Mistake(format string, a ...any) error { return &note{fmt.Errorf(format, a...), errMistake} }

// Not returns an error that wraps ErrNo, without its text.
func Not(format string, a ...any) error { return &note{fmt.Errorf(format, a...), ErrNo} }

// Parse parses the flags of an example. For -h it prints the help and the flags,
// and returns flag.ErrHelp.
func Parse(flags *flag.FlagSet, help string, args []string, stdout io.Writer) error {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	title := ""
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		flags.VisitAll(func(*flag.Flag) { title = "\nFlags:\n" })
		if _, err := io.WriteString(stdout, help+title); err != nil {
			return err
		}
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return err
	}
	if err != nil {
		return Mistake("%w", err)
	}
	return nil
}

// Exit prints the error of an example, if there is anything to say, with what can be
// done, and returns the exit status.
func Exit(name string, err error, stderr io.Writer) (status int) {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return OK
	case err == ErrInterrupted: //nolint:errorlint // alone: the output says it
		return Interrupted
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	var op *net.OpError
	switch {
	case errors.Is(err, ErrInterrupted):
		return Interrupted
	case errors.Is(err, errMistake):
		fmt.Fprintf(stderr, "For help: go run ./examples/%s -h\n", name)
	case errors.Is(err, ErrNo):
		return No
	case errors.As(err, &op) && op.Op == "dial": // which goes to this machine
		fmt.Fprintln(stderr, "Is the loopback interface up, with its address?")
	}
	return Failed
}
