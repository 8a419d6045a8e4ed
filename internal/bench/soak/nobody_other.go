//go:build !linux

package main

import (
	"context"
	"os"
)

func self() string {
	exe, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return exe
}

// asNobody is for Linux: elsewhere the soak runs as who started it.
func asNobody(context.Context) (inside bool, err error) { return true, nil }
