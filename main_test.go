package reuse_test

import (
	"testing"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) {
	testproc.Main(m, map[string]testproc.Child{
		"binder":  binder,
		"packets": packets,
	})
}
