//go:build linux

package group_test

import (
	"testing"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) { testproc.Main(m, accidentChildren) }
