//go:build !unix && !windows

package measure_test

import "testing"

func uname(testing.TB) (release, version string) { return "", "" }

func onWine() bool { return false }
