//go:build !linux

package handover

// systemCommands are the commands of a child on one system only.
var systemCommands map[string]func(args []string) error
