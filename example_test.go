package reuse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"example.com/reuse"
)

// A Config is a value: it can be compared, copied and printed.
func ExampleConfig() {
	var c reuse.Config // as package net
	fmt.Println(c == reuse.Config{}, c)
	c.PortLB = reuse.On
	fmt.Println(c)
	// Output:
	// true Default
	// PortLB=On
}

// A configuration that contradicts itself is refused on every system alike.
func ExampleConfig_Check() {
	err := reuse.Config{Exclusive: reuse.On, Port: reuse.On}.Check()
	fmt.Println(errors.Is(err, reuse.ErrConflict), err)
	// Output: true reuse: check Exclusive: contradictory options: Exclusive On with Port On
}

// A client whose connections come from one address, of which there can be more than
// there are ephemeral ports.
func ExampleConfig_Dialer() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, "hello,", host)
	}))
	defer server.Close()

	d, err := reuse.Config{DeferPort: reuse.Prefer}.Dialer(net.Dialer{
		Timeout:   5 * time.Second,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	fmt.Print(ask(&client, server.URL))
	// Output: hello, 127.0.0.1
}

// ask returns what a web server answers.
func ask(client *http.Client, url string) string {
	answer, err := client.Get(url)
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

// Prefer continues without an option that the system lacks. Every other error remains:
// here the port is in use by a listener that does not share.
func ExampleSetting() {
	ctx := context.Background()
	alone, err := net.Listen("tcp4", "127.0.0.1:0") // without the option
	if err != nil {
		log.Fatal(err)
	}
	defer alone.Close()

	c := reuse.Config{PortLB: reuse.Prefer}
	_, err = c.Listen(ctx, "tcp4", alone.Addr().String())
	fmt.Println("refused:", err != nil)
	// Output: refused: true
}

// An error about an option is inside that of package net.
func ExampleOptionError() {
	// Only a dialed socket can choose its port when it connects.
	_, err := reuse.Config{DeferPort: reuse.On}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	var o *reuse.OptionError
	if errors.As(err, &o) {
		fmt.Println(o.Op, o.Option, errors.Is(err, errors.ErrUnsupported))
	}
	// Output: set DeferPort true
}

// One of several processes on a port.
func Example() {
	ctx := context.Background()
	l, err := reuse.Config{PortLB: reuse.On}.Listen(ctx, "tcp4", ":8080")
	if err != nil {
		log.Fatal(err) // also where the kernel does not spread connections
	}
	log.Fatal(http.Serve(l, nil))
}

// listeners opens n listeners at one address, over which the kernel spreads new
// connections. Where it spreads nothing, it is one.
func listeners(ctx context.Context, n int, network, address string) (list []net.Listener, err error) {
	c := reuse.Config{PortLB: reuse.On}
	if errors.Is(reuse.PortLB.Supported(), errors.ErrUnsupported) {
		n, c = 1, reuse.Config{}
	}
	for range n {
		l, err := c.Listen(ctx, network, address)
		if err != nil {
			for _, l := range list {
				l.Close()
			}
			return nil, err
		}
		list = append(list, l)
		address = l.Addr().String() // if it was port 0, all have the same one
	}
	return list, nil
}

// A web server with an accept queue for each of its listeners. The listeners are those
// of package net, so every server with a Serve(net.Listener) can use them, as gRPC does.
func Example_listeners() {
	list, err := listeners(context.Background(), 4, "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }),
		ReadHeaderTimeout: 5 * time.Second,
	}
	served := make(chan error, len(list))
	for _, l := range list {
		go func() { served <- srv.Serve(l) }()
	}
	client := http.Client{Timeout: 10 * time.Second}
	fmt.Print(ask(&client, "http://"+list[0].Addr().String())) // one of them answers

	srv.Close() // and the listeners with it
	for range list {
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}
	// Output: hello
}
