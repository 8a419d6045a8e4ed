//go:build !plan9

package handoverhttp_test

import "syscall"

const errRefused = syscall.ECONNREFUSED
