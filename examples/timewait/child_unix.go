//go:build unix && !android && !ios

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
)

// heir serves the connection that the old server leaves.
const heir = "a child process"

// startChild gives a connection to a new process, and returns what waits for it.
func startChild(conn *net.TCPConn) (wait func() error, err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	f, err := conn.File()
	if err := errors.Join(err, conn.Close()); err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asChild+"=1")
	cmd.ExtraFiles = []*os.File{f} // 3 in the child
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	return cmd.Wait, errors.Join(err, f.Close())
}

// child is the other process.
func child(stderr io.Writer) int {
	conn, err := net.FileConn(os.NewFile(3, "connection"))
	if err == nil {
		err = serve(conn)
	}
	if err != nil {
		fmt.Fprintf(stderr, "timewait: the child: %v\n", err)
		return 1
	}
	return 0
}
