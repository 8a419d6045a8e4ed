package handoverhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"example.com/reuse"
	"example.com/reuse/handover"
	"example.com/reuse/handover/handoverhttp"
)

// A server of which the next process takes the place. Without a Name it works on
// every system, and stops gracefully.
func ExampleServer_Run() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var client sync.WaitGroup
	srv := handoverhttp.Server{
		HTTP: &http.Server{
			Addr:              "127.0.0.1:0", // or ":8080"
			Handler:           http.HandlerFunc(hello),
			ReadHeaderTimeout: 5 * time.Second,
		},
		Name: name("web"),
		OnReady: func(_ *handover.Process, l net.Listener) {
			client.Go(func() {
				fmt.Println(get("http://" + l.Addr().String()))
				stop() // instead of a signal, or of another process
			})
		},
	}
	err := srv.Run(ctx)
	client.Wait()
	fmt.Println(err)
	// Output:
	// hello
	// <nil>
}

// Two servers of one process. The next process takes both addresses.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := handover.Config{Name: name("two")}.Start(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	served := make(chan error)
	listen := func(address string) net.Listener {
		l, err := p.Listen(ctx, reuse.Config{}, "tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		return l
	}
	serve := func(l net.Listener) {
		srv := &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: 5 * time.Second}
		served <- handoverhttp.Serve(ctx, p, srv, 10*time.Second, l)
	}
	web, admin := listen("127.0.0.1:0"), listen("127.0.0.1:0") // all of them before the first Serve
	go serve(web)
	go serve(admin)

	fmt.Println(get("http://" + web.Addr().String()))
	fmt.Println(get("http://" + admin.Addr().String()))
	stop()
	fmt.Println(<-served, <-served)
	// Output:
	// hello
	// hello
	// <nil> <nil>
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

// get is a client.
func get(url string) string {
	r, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// name returns a Name, or an empty one where processes cannot pass sockets.
func name(service string) string {
	service = fmt.Sprintf("%s-%d", service, os.Getpid())
	p, err := handover.Config{Name: service}.Start(context.Background())
	if errors.Is(err, errors.ErrUnsupported) {
		return ""
	} else if err != nil {
		log.Fatal(err)
	}
	p.Close()
	return service
}
