//go:build !unix

package handover

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestUnsupported(t *testing.T) {
	t.Parallel()
	_, err := Config{Name: "web"}.Start(t.Context())
	assert.ErrorIs(t, err, errors.ErrUnsupported)
}
