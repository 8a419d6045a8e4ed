// Package term contains the common parts of the example programs: the command line, errors
// and exit statuses, paragraphs in the width of the terminal, and a second process.
package term

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Main parses the flags, of which some arguments remain, runs an example, and exits. For -h
// it prints help and the flags. The exit status is 0, or 1 for an error from No, or 2 for
// any other error, which includes those of the command line and of writing to Out.
func Main(help string, args int, run func() error) {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), help)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != args {
		exit(fmt.Errorf("arguments %q: %d wanted (-h for help)", flag.Args(), args))
	}
	exit(errors.Join(run(), stdout.err))
}

func exit(err error) {
	status := 0
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		status = 2
	}
	if errors.As(err, new(no)) {
		status = 1
	}
	os.Exit(status)
}

type no struct{ error }

// No returns the error of an example that has finished and found a negative result.
func No(format string, a ...any) error { return no{fmt.Errorf(format, a...)} }

// Out is standard output. Main returns its first error.
var Out io.Writer = &stdout

var stdout output

type output struct{ err error }

func (o *output) Write(b []byte) (int, error) {
	n, err := os.Stdout.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// Say prints a paragraph, broken between words to the width of the terminal. Every line
// begins with the spaces that format begins with.
func Say(format string, a ...any) {
	indent := format[:len(format)-len(strings.TrimLeft(format, " "))]
	fmt.Fprintln(Out, fill(indent, fmt.Sprintf(format, a...), width()))
}

func fill(indent, text string, width int) string {
	line, lines := "", ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = indent + word
		case utf8.RuneCountInString(line+" "+word) > width:
			lines += line + "\n"
			line = indent + word
		default:
			line += " " + word
		}
	}
	return lines + line
}

// width returns the width for text, at most 76 columns for readability. A character in the
// last column makes some terminals wrap.
func width() int {
	n, _ := strconv.Atoi(os.Getenv("COLUMNS")) // 0 if it is no number
	return min(cmp.Or(columns(os.Stdout), max(n, 0), 80)-1, 76)
}

// Reason returns the text of the innermost error, without addresses, which differ between
// runs.
func Reason(err error) (text string) {
	for ; err != nil; err = errors.Unwrap(err) {
		text = err.Error()
	}
	return text
}
