package term

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	parse := func(args ...string) (n int, out string, err error) {
		var b strings.Builder
		flags := flag.NewFlagSet("name", flag.ContinueOnError)
		flags.IntVar(&n, "n", 1, "a `number`")
		err = Parse(flags, "Usage: name\n", args, &b)
		return n, b.String(), err
	}
	n, out, err := parse("-n", "2")
	require.NoError(t, err)
	assert.Equal(t, 2, n)
	assert.Empty(t, out)

	_, out, err = parse("-h")
	require.ErrorIs(t, err, flag.ErrHelp)
	assert.Equal(t, "Usage: name\n\nFlags:\n  -n number\n    \ta number (default 1)\n", out)

	_, out, err = parse("-m")
	require.ErrorIs(t, err, errMistake)
	assert.Empty(t, out)

	flags := flag.NewFlagSet("name", flag.ContinueOnError)
	var none strings.Builder
	require.ErrorIs(t, Parse(flags, "Usage: name\n", []string{"-h"}, &none), flag.ErrHelp)
	assert.Equal(t, "Usage: name\n", none.String())
	assert.EqualError(t, Parse(flags, "Usage: name\n", []string{"-h"}, failing{}), "full")
}

func TestExit(t *testing.T) {
	t.Parallel()
	failure := errors.New("too bad")
	for _, tt := range []struct {
		err    error
		status int
		says   string
	}{
		{nil, OK, ""},
		{flag.ErrHelp, OK, ""},
		{ErrInterrupted, Interrupted, ""},
		{failure, Failed, "name: too bad\n"},
		{errors.Join(failure, ErrInterrupted), Interrupted, "name: too bad\ninterrupted\n"},
		{Not("%d lost", 2), No, "name: 2 lost\n"},
		{fmt.Errorf("at last: %w", Not("%w", io.EOF)), No, "name: at last: EOF\n"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: failure}, Failed, "name: dial tcp: too bad\nIs the loopback interface up, with its address?\n"},
		{&net.OpError{Op: "listen", Net: "tcp", Err: failure}, Failed, "name: listen tcp: too bad\n"},
		{Mistake("-n %d", 2), Failed, "name: -n 2\nFor help: go run ./examples/name -h\n"},
	} {
		var b strings.Builder
		assert.Equal(t, tt.status, Exit("name", tt.err, &b), "%v", tt.err)
		assert.Equal(t, tt.says, b.String())
	}
	assert.ErrorIs(t, Not("%w", io.EOF), io.EOF)
}
