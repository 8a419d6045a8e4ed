//go:build unix && !android && !ios

package main

// handle is what package syscall takes for a socket.
type handle = int
