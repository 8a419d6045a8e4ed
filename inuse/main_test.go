package inuse

import (
	"testing"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.Main(m, children()) }
