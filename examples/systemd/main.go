// Systemd is a web server for a systemd unit. "systemctl reload" starts the next
// version, which takes the sockets of the running one. As an instance of a template
// it does the same for another instance. docs/restart.md has the units.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

func main() {
	address := flag.String("address", "127.0.0.1:8080", "`address` to listen on")
	name := flag.String("name", "web", "`name` of the service: processes with the same one succeed each other")
	flag.Parse()
	log.SetFlags(0)

	parent := os.Getppid() // now, as it may exit
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	var reloads sync.WaitGroup
	srv := handoverhttp.Server{
		HTTP: &http.Server{Addr: *address, Handler: handler, ReadHeaderTimeout: 5 * time.Second},
		Name: *name,
		OnReady: func(p *handover.Process, l net.Listener) {
			log.Printf("%d serves %v", os.Getpid(), l.Addr())
			if p.Predecessor() != parent { // which would send this process's MAINPID
				notify(daemon.SdNotifyReady)
			}
			reloads.Go(func() { startSuccessors(ctx, p, reload) })
		},
	}
	err := srv.Run(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // requests were cut off after Grace
		log.Print(err) // with another status systemd would start this version again
	} else if err != nil {
		log.Fatal(err)
	}
	reloads.Wait()
}

// startSuccessors starts the next version for each signal, until p is replaced or ctx
// ends.
func startSuccessors(ctx context.Context, p *handover.Process, reload <-chan os.Signal) {
	for {
		select {
		case <-reload:
		case <-p.Replaced(): // by a process that something else has started
			return
		case <-ctx.Done():
			return
		}
		// The path, not the running file: a link may lead to another version by now.
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
			name, _, _ := strings.Cut(v, "=")
			return name == "WATCHDOG_PID" || name == "LISTEN_PID" || name == "LISTEN_FDS" // of this process only
		})
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			log.Print(err)
			continue
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }() // ends with one of the two processes
		select {
		case err := <-exited:
			log.Printf("%d serves on, as the next version failed: %v", os.Getpid(), err)
		case <-p.Replaced():
			// Before this process exits: systemd stops a unit whose main process exits.
			notify(fmt.Sprintf("MAINPID=%d", cmd.Process.Pid))
			return
		case <-ctx.Done():
			return // systemd stops all processes of the unit
		}
	}
}

// notify tells systemd, if that has started this process.
func notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Print(err)
	}
}
