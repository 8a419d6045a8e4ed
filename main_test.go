package reuse_test

import (
	"maps"
	"testing"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) {
	children := map[string]testproc.Child{
		"binder":  binder,
		"packets": packets,
	}
	maps.Copy(children, systemChildren)
	testproc.Main(m, children)
}
