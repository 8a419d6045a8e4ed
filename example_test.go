package reuse_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
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

func ExampleConfig_String() {
	fmt.Println(reuse.Config{Addr: reuse.Off, PortLB: reuse.Prefer})
	fmt.Println(reuse.Config{})
	// Output:
	// Addr=Off,PortLB=Prefer
	// Default
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
	answer, err := client.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(text))
	// Output: hello, 127.0.0.1
}

func ExampleOption_String() {
	fmt.Println(reuse.PortLB, reuse.DeferPort)
	// Output: PortLB DeferPort
}

// The address of a server that is started twice by accident is in use. One that is
// to run several times says so.
func ExampleSetting() {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	share := flags.Bool("share", false, "let other servers have the port, too")
	if err := flags.Parse([]string{"-share"}); err != nil {
		log.Fatal(err)
	}
	var c reuse.Config
	if *share {
		c.PortLB = reuse.On
	}
	fmt.Println(c)
	// Output: PortLB=On
}

func ExampleSetting_String() {
	fmt.Println(reuse.Default, reuse.On, reuse.Off, reuse.Prefer)
	// Output: Default On Off Prefer
}

// An error about an option is inside that of package net.
func ExampleOptionError() {
	// Only a dialed socket can choose its port late.
	_, err := reuse.Config{DeferPort: reuse.On}.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	var o *reuse.OptionError
	if errors.As(err, &o) {
		fmt.Println(o.Op, o.Option)
	}
	// Output: set DeferPort
}

func ExampleOptionError_Error() {
	err := reuse.Config{PortLB: reuse.On, Port: reuse.Off}.Check()
	fmt.Println(err)
	// Output: reuse: check PortLB: contradictory options: PortLB On with Port Off
}

// What is wrapped is found through an OptionError.
func ExampleOptionError_Unwrap() {
	err := reuse.Config{Addr: 77}.Check()
	fmt.Println(errors.Is(err, os.ErrInvalid), strings.HasSuffix(err.Error(), errors.Unwrap(err).Error()))
	// Output: true true
}
