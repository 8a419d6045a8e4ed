package group_test

import (
	"maps"
	"testing"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) {
	children := maps.Clone(accidentChildren)
	maps.Copy(children, packetChildren)
	testproc.Main(m, children)
}
