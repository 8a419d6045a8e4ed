package measure_test

import (
	"testing"

	"example.com/reuse/internal/testproc"
)

// isolated says that nobody else uses ports where the tests run.
const isolated = true

// alone goes on in a network namespace of the test's own.
func alone(t *testing.T) bool { return testproc.Netns(t) }
