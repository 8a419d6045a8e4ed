package sockopt_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/sockopt"
)

// No descriptor has this number.
const closed = ^uintptr(0) >> 1

func TestErrorsAreNotLost(t *testing.T) {
	t.Parallel()
	require.Error(t, sockopt.Set(closed, 1, 1, 1))
	_, err := sockopt.Get(closed, 1, 1)
	require.Error(t, err)
	_, err = sockopt.Stream(closed)
	assert.Error(t, err)
	_, err = sockopt.V6Only(closed)
	assert.Error(t, err)
}
