package group_test

import (
	"maps"
	"testing"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) {
	children := map[string]testproc.Child{"generation": serveGeneration}
	maps.Copy(children, systemChildren())
	testproc.Main(m, children)
}
