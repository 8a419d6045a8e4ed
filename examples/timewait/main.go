//go:build !android && !ios

// Timewait stops a server whose connections are still in the kernel, and starts it again on
// the same port, with every pair of options.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"text/tabwriter"

	"example.com/reuse"
	"example.com/reuse/internal/term"
	"example.com/reuse/inuse"
)

const help = `Usage: go run ./examples/timewait

Shows with which options a new server can listen on the port of an old one,
whose connection is in TIME_WAIT, or still open. On Linux and Windows it also
shows what the kernel keeps. (FreeBSD keeps no TIME_WAIT over loopback unless
net.inet.tcp.nolocaltimewait is 0.)

Exit status: 0 if a Go server can start again during TIME_WAIT without asking
for an option, 1 if not, 2 if this could not be done.
`

var configs = []struct {
	name   string
	config reuse.Config
}{
	{"net", reuse.Config{}},                 // as net.Listen: Addr, except on Windows
	{"none", reuse.Config{Addr: reuse.Off}}, // no option
	{"Port", reuse.Config{Addr: reuse.Off, Port: reuse.On}},
	{"Excl", reuse.Config{Exclusive: reuse.On}},
}

func main() {
	term.Main(help, 0, func() error {
		term.Say("Can a new server listen on the port of an old one? net is package net's listener, none one without any option, Port and Excl are those fields On.")
		restarts, err := try("The server closed its connection first:", false)
		if err == nil {
			_, err = try("The connection is still open:", true)
		}
		if err == nil && !restarts {
			err = term.No("a Go server cannot start again while a connection is in TIME_WAIT")
		}
		return err
	})
}

// try prints the table, and returns whether package net's listener works after its own.
func try(title string, open bool) (restarts bool, err error) {
	term.Say("")
	term.Say("%s", title)
	table := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "  old, new:")
	for _, c := range configs {
		fmt.Fprintf(table, "\t%s", c.name)
	}
	kept := ""
	for _, before := range configs {
		fmt.Fprintf(table, "\n  %s", before.name)
		for _, after := range configs {
			result, err := restart(before.config, after.config, open, &kept)
			if err != nil {
				return false, fmt.Errorf("%s, then %s: %w", before.name, after.name, err)
			}
			fmt.Fprintf(table, "\t%s", result)
			restarts = restarts || before.name == "net" && after.name == "net" && result == "yes"
		}
	}
	fmt.Fprintln(table)
	table.Flush()
	if kept != "" {
		term.Say("The kernel keeps it as %s.", kept)
	}
	return restarts, nil
}

// restart returns whether a new listener works after an old one that has left a connection,
// and finds out the state of that if it is unknown.
func restart(before, after reuse.Config, open bool, state *string) (result string, err error) {
	ctx := context.Background()
	old, err := before.Listen(ctx, "tcp4", "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		return "-", nil
	} else if err != nil {
		return "", err
	}
	defer old.Close()
	client, err := net.Dial("tcp4", old.Addr().String())
	if err != nil {
		return "", err
	}
	defer client.Close()
	conn, err := old.Accept()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if !open {
		conn.Close() // before the client does, so that TIME_WAIT is on the server's port
		if _, err := io.Copy(io.Discard, client); err != nil {
			return "", err
		}
		client.Close()
	}
	old.Close()
	if *state == "" {
		if left, err := inuse.Holders(ctx, "tcp4", old.Addr().String()); err == nil && len(left) > 0 {
			*state = left[0].State
		}
	}
	l, err := after.Listen(ctx, "tcp4", old.Addr().String())
	switch {
	case err == nil:
		return "yes", l.Close()
	case errors.Is(err, errors.ErrUnsupported):
		return "-", nil
	}
	return "no", nil
}
