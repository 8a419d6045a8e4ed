//go:build !unix && !windows

package inuse

func uname() (release, version string) { return "", "" }
