//go:build !linux

package handover

// systemCommands are what a process can be told on one system only.
var systemCommands map[string]func(args []string) error
