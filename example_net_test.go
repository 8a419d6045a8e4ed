package reuse_test

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
	"time"

	"example.com/reuse"
)

// A server of net/http. Where the system spreads connections over them, more
// processes can serve the same port.
func Example_httpServer() {
	l, err := reuse.Config{PortLB: reuse.Prefer}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello")
		}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()

	fmt.Print(ask(l.Addr())) // a client

	srv.Close() // and the listener with it
	fmt.Println(<-served)
	// Output:
	// hello
	// http: Server closed
}

// A server that ends when it is interrupted, after the requests that it has begun to
// read. Shutdown drops the others.
func Example_gracefulShutdown() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	l, err := reuse.Config{PortLB: reuse.Prefer}.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			stop() // here Ctrl-C is pressed during a request
			fmt.Fprintln(w, "answered")
		}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	down := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		down <- srv.Shutdown(grace)
	}()
	got := make(chan string, 1)
	go func() { got <- ask(l.Addr()) }() // a client

	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := <-down; err != nil {
		log.Fatal(err) // a request took too long
	}
	fmt.Print(<-got)
	// Output: answered
}

// ask returns what a web server answers.
func ask(server net.Addr) string {
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + server.String())
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// A net.ListenConfig keeps what it has, its KeepAlive, say, and gets the options.
func Example_keepAlive() {
	lc, err := reuse.Config{PortLB: reuse.Prefer}.ListenConfig(net.ListenConfig{
		KeepAlive: 30 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(lc.KeepAlive)
	// Output: 30s
}

// Where processes cannot share the load of a port, one serves alone. Prefer does
// without an option that the system lacks, and nothing else: the port of somebody who
// does not share is in use.
func Example_prefer() {
	ctx := context.Background()
	alone, err := net.Listen("tcp4", "127.0.0.1:0") // without the option
	if err != nil {
		log.Fatal(err)
	}
	defer alone.Close()

	c := reuse.Config{PortLB: reuse.Prefer}
	_, err = c.Listen(ctx, "tcp4", alone.Addr().String())
	fmt.Println("refused:", err != nil)

	l, err := c.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	if err := reuse.PortLB.Supported(); err != nil {
		log.Print("this process serves alone: ", err)
	}
	// Output: refused: true
}
