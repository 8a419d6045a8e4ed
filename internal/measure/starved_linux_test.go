package measure_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/measure"
	"example.com/reuse/internal/semantics"
)

// Without a descriptor nothing can be measured, and the error says why, once.
func TestStarved(t *testing.T) {
	if !alone(t) { // in a process that may go without
		return
	}
	was := unix.Rlimit{}
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	none := was
	none.Cur = 0
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	p := measure.Pair{Proto: semantics.TCP, State: semantics.Bound, First: measure.Specific, Second: measure.Specific}
	_, err := measure.Here{}.Bind(t.Context(), p, 1)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	require.ErrorIs(t, err, unix.EMFILE)
	assert.EqualError(t, err, "b: socket: too many open files")
}
