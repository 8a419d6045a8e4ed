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

// Two servers of one process, and several listeners of one address, between which the
// kernel spreads connections. The next process takes all of them.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := handover.Config{Name: name("two")}.Start(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	web, err := listen(ctx, p, 4, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	admin, err := listen(ctx, p, 1, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 2)
	serve := func(list []net.Listener) {
		srv := &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: 5 * time.Second}
		served <- handoverhttp.Serve(ctx, p, srv, 10*time.Second, list...)
	}
	go serve(web)
	go serve(admin)

	fmt.Println(get("http://" + web[0].Addr().String()))
	fmt.Println(get("http://" + admin[0].Addr().String()))
	stop()
	fmt.Println(<-served, <-served)
	// Output:
	// hello
	// hello
	// <nil> <nil>
}

// listen asks for n listeners of one address. Where the kernel cannot spread
// connections over several, it is one.
func listen(ctx context.Context, p *handover.Process, n int, network, address string) (list []net.Listener, err error) {
	c := reuse.Config{PortLB: reuse.On}
	if n == 1 || errors.Is(reuse.PortLB.Supported(), errors.ErrUnsupported) {
		n, c = 1, reuse.Config{}
	}
	for range n {
		l, err := p.Listen(ctx, c, network, address)
		if err != nil {
			return nil, err // p.Close closes the others
		}
		list = append(list, l)
		address = l.Addr().String() // if it was port 0, all have the same one
	}
	return list, nil
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

// get is a client.
func get(url string) string {
	r, err := (&http.Client{Timeout: 10 * time.Second}).Get(url)
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
