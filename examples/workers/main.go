//go:build !android && !ios

// Workers starts processes that listen on one port, connects to it many times, and shows
// which process gets how many connections.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"example.com/reuse"
	"example.com/reuse/internal/term"
)

const help = `Usage: go run ./examples/workers [flags]

Starts processes that listen on the same port, makes connections to it, and
shows which process gets how many. On Linux, FreeBSD, DragonFly and Solaris
11.4 the kernel spreads them by a hash of addresses and ports (PortLB). On
macOS, the other BSDs, AIX and earlier Solaris one process may get them all
(Port). Windows and illumos have neither.

Exit status: 0 if every connection was answered, 1 if one was not, 2 if this
could not be done.

`

const (
	patience = 5 * time.Second // for a connection
	clients  = 16              // connect at a time
)

// A worker is what one of the processes does.
type worker struct {
	Config  reuse.Config
	Address string
}

// run answers every connection with the number of the process, until ctx ends.
func (w worker) run(ctx context.Context) error {
	l, err := w.Config.Listen(ctx, "tcp", w.Address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	fmt.Println(l.Addr())
	for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
		fmt.Fprint(conn, os.Getpid()) // if this fails, the client counts it
		conn.Close()
	}
	return nil
}

// connect returns the number of the process that gets a connection.
func connect(address string) (pid int, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // fails on a closed one
	_, err = fmt.Fscan(conn, &pid)
	return pid, err
}

func main() {
	term.Child(func(ctx context.Context, w worker) error { return w.run(ctx) })
	n := flag.Int("n", 4, "`number` of processes")
	connections := flag.Int("connections", 20000, "`number` of connections")
	term.Main(help, 0, func() error {
		if *n < 2 || *connections < 1 {
			return errors.New("give at least 2 for -n, and 1 for -connections")
		}
		return run(*n, *connections)
	})
}

func run(n, connections int) error {
	// PortLB spreads the connections. Port lets processes share the port, no more.
	w := worker{reuse.Config{PortLB: reuse.On}, "127.0.0.1:0"}
	if reuse.PortLB.Supported() != nil {
		w.Config = reuse.Config{Port: reuse.On}
	}
	if err := reuse.Port.Supported(); err != nil {
		return fmt.Errorf("processes cannot share a port here: %w", err)
	}
	var pids []int
	for range n {
		p, err := term.Start(w)
		if err != nil {
			return err
		}
		defer func() { _ = p.Stop() }() // if it has failed, connections are lost
		pids = append(pids, p.Process.Pid)
		w.Address = p.Line // with the port, for the other workers
	}
	term.Say("%d processes listen on %s (%v) and get %d connections, %d at a time.",
		n, w.Address, w.Config, connections, clients)

	var group sync.WaitGroup
	var mu sync.Mutex
	got, failed := map[int]int{}, map[string]int{} // by process, by reason
	for client := range clients {
		group.Go(func() {
			for i := client; i < connections; i += clients {
				pid, err := connect(w.Address)
				mu.Lock()
				if err == nil {
					got[pid]++
				} else {
					failed[term.Reason(err)]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return report(pids, connections, got, failed)
}

// report prints what each process got, and fails if a connection was not answered by one.
func report(pids []int, connections int, got map[int]int, failed map[string]int) error {
	term.Say("")
	table := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "process\tconnections\tshare\t")
	answered := 0
	for _, pid := range pids {
		answered += got[pid]
		fmt.Fprintf(table, "%d\t%d\t%.1f%%\t\n", pid, got[pid], 100*float64(got[pid])/float64(connections))
	}
	table.Flush()
	for reason, n := range failed {
		term.Say("%d failed: %s", n, reason)
	}
	if answered < connections {
		return term.No("%d of %d connections were not answered by a worker", connections-answered, connections)
	}
	return nil
}
