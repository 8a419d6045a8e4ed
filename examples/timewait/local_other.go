//go:build !freebsd && !android && !ios

package main

// localNote would say that the kernel keeps nothing of a connection within the machine.
func localNote() string { return "" }
