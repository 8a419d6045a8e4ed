package group_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/group"
)

type generation struct {
	g    *group.Group
	done chan error
}

func start(t *testing.T, size int, network, address string) *generation {
	g, err := group.Config{Size: size}.Listen(t.Context(), network, address)
	require.NoError(t, err)
	s := &generation{g, make(chan error, 1)}
	serving := make(chan struct{}, size)
	go func() {
		s.done <- g.Serve(func(l net.Listener) error {
			serving <- struct{}{}
			return answer(l)
		})
	}()
	<-serving
	return s
}

// One generation after the other takes over under load, and nothing is lost.
func TestHandOver(t *testing.T) {
	for _, tt := range []struct {
		network, address, target string
		sizes                    []int
	}{
		{"tcp4", "127.0.0.1:0", "127.0.0.1", []int{1}},
		{"tcp4", "127.0.0.1:0", "127.0.0.1", []int{2}},
		{"tcp6", "[::1]:0", "::1", []int{1}},
		{"tcp6", "[::1]:0", "::1", []int{4}},
		{"tcp", ":0", "127.0.0.1", []int{2, 4, 1}},
	} {
		t.Run(tt.network, func(t *testing.T) {
			s := start(t, tt.sizes[0], tt.network, tt.address)
			address := s.g.Addr().String()
			_, port, err := net.SplitHostPort(address)
			require.NoError(t, err)
			stop := load(net.JoinHostPort(tt.target, port), 16)
			for i := range 10 {
				next := start(t, tt.sizes[i%len(tt.sizes)], tt.network, address)
				require.NoError(t, next.g.TakeOver(t.Context(), 0))
				require.NoError(t, s.g.Drain(t.Context()))
				require.NoError(t, <-s.done)
				s = next
			}
			answered, lost := stop()
			assert.NotZero(t, answered)
			assert.Empty(t, lost)
			t.Log(answered, "answered")
			require.NoError(t, s.g.Close())
			require.NoError(t, <-s.done)
		})
	}
}
