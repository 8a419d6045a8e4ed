//go:build !linux && !ios

package main

import (
	"os"
	"os/exec"
)

func prepare(string) error { return nil }

// unprivileged tells whether a command runs as somebody who cannot become another
// user.
func unprivileged(*exec.Cmd) bool { return os.Geteuid() != 0 }
