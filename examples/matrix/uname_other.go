//go:build !unix && !windows

package main

import "errors"

// uname has nothing to tell of systems whose sockets have no options.
func uname() (release, version string, err error) { return "", "", errors.ErrUnsupported }

func impostor() string { return "" }
