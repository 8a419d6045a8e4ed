//go:build linux || windows

// A Windows service's listener, which runs on Linux, too.

package reuse_test

import (
	"context"
	"fmt"
	"log"

	"example.com/reuse"
)

// The port of a Windows service. Without Exclusive another process of the same user
// may bind a more specific address than the service's, and get the connections to it.
func Example_windowsService() {
	ctx := context.Background()
	l, err := reuse.Config{Exclusive: reuse.On}.Listen(ctx, "tcp4", "127.0.0.1:0") // or ":8080"
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close() // when the service manager says stop

	other, err := reuse.Config{Addr: reuse.On}.Listen(ctx, "tcp4", l.Addr().String())
	if err == nil {
		other.Close()
	}
	fmt.Println("refused:", err != nil)
	// Output: refused: true
}
