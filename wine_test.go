//go:build !windows

package reuse_test

func onWine() bool { return false }
