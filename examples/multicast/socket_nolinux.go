//go:build unix && !linux && !ios

package main

// joinedOnly has nothing to set. FreeBSD, DragonFly and macOS look at a socket's
// own groups anyway; OpenBSD and NetBSD give it every group that comes in on its
// port.
func joinedOnly(uintptr) error { return nil }
