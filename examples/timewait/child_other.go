//go:build !unix

package main

import (
	"io"
	"net"
)

// heir serves the connection that the old server leaves.
const heir = "a goroutine"

// startChild serves the connection in this process: package os/exec cannot pass
// a socket on here.
func startChild(conn *net.TCPConn) (wait func() error, err error) {
	done := make(chan error, 1)
	go func() { done <- serve(conn) }()
	return func() error { return <-done }, nil
}

// child is not started here.
func child(io.Writer) int { return 2 }
