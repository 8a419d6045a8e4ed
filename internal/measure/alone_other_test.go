//go:build !linux

package measure_test

import "testing"

// isolated says that nobody else uses ports where the tests run.
const isolated = false

func alone(*testing.T) bool { return true }
