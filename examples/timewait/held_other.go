//go:build !linux && !ios

package main

import "net/netip"

// held would return what the kernel keeps on a port.
func held(netip.AddrPort) ([]left, error) { return nil, nil }
