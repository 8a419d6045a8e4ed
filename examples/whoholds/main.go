//go:build !android && !ios

// Whoholds shows which sockets and processes hold an address, which rule refuses another
// socket there, and what works instead.
package main

import (
	"context"
	"flag"
	"fmt"

	"example.com/reuse"
	"example.com/reuse/internal/term"
	"example.com/reuse/inuse"
)

const help = `Usage: go run ./examples/whoholds [-network tcp] ADDRESS

Shows which sockets overlap an address such as 127.0.0.1:8080 or :8080,
listening or not, which process has them, which rule of the kernel refuses
another socket, and what works instead. It does not bind the port.

Systems: on Linux it sees the sockets of its network namespace, and the
processes of its own user, or as root of all. On Windows it sees those of all
users. Elsewhere it fails, and the error says so.

Exit status: 0 if the address is held, or something else refuses a bind, 1 if
it is free, 2 if that could not be found out.

Examples:
  go run ./examples/whoholds 127.0.0.1:8080
  go run ./examples/whoholds -network udp :53
  go run ./examples/whoholds -network unix /run/app.sock

`

func main() {
	network := flag.String("network", "tcp", "`network` of the address: tcp, tcp4, udp6, unix, ...")
	term.Main(help, 1, func() error {
		r, err := inuse.Check(context.Background(), reuse.Config{}, *network, flag.Arg(0))
		if err != nil {
			return err
		}
		sockets := *r
		sockets.Reason, sockets.Advice = "", nil
		fmt.Fprintln(term.Out, &sockets)
		term.Say("%s", r.Reason) // filled to the terminal
		for i, a := range r.Advice {
			if i == 0 {
				term.Say("")
			}
			term.Say("- %s", a)
		}
		if r.Free && len(r.Holders) == 0 {
			return term.No("the address is free")
		}
		return nil
	})
}
