//go:build !solaris

package reuse

import "runtime"

// system is the name of this system in support.go.
func system() string { return runtime.GOOS }
