package group_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/group"
	"example.com/reuse/internal/testproc"
)

// A request is when a client began and ended one, and how.
type request struct {
	begin, end time.Time
	err        error
}

// requests makes requests from n clients, each one after the other, until stop is called,
// which returns those that were lost and the number of the others.
func requests(address string, n int) (stop func() (lost []request, answered int)) {
	var clients sync.WaitGroup
	var ended atomic.Bool
	var count atomic.Int64
	var mu sync.Mutex
	var failed []request
	for range n {
		clients.Go(func() {
			for !ended.Load() {
				r := request{begin: time.Now()}
				r.err = ask(address)
				r.end = time.Now()
				if r.err == nil {
					count.Add(1)
					continue
				}
				mu.Lock()
				failed = append(failed, r)
				mu.Unlock()
			}
		})
	}
	return func() ([]request, int) {
		ended.Store(true)
		clients.Wait()
		return failed, int(count.Load())
	}
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	require.NoError(t, err, name)
	return n
}

// A process is killed at any moment of a hand-over, and the other one serves on. Nothing is
// lost but what was under way while the victim died: each lost request had begun before the
// victim was gone for good, and had not ended before it was killed. A client has one at
// a time, but when one listener of the victim has closed and reset it, its next may come to
// another that has not. When the next newcomer has settled, nothing is left of the victim:
// no program, no lock, no listener.
//
// REUSE_TEST_KILLS is the number of kills, REUSE_TEST_SEED makes the moments the same
// again, as far as the processes are.
func TestKilled(t *testing.T) {
	if testing.Short() && os.Getenv("REUSE_TEST_KILLS") == "" {
		t.Setenv("REUSE_TEST_KILLS", "5")
	}
	if !testproc.Netns(t) {
		return
	}
	seed := number(t, "REUSE_TEST_SEED", rand.Uint64())
	t.Log("REUSE_TEST_SEED =", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const size, clients = 2, 8
	letters := 0
	fresh := func(address string) (p *testproc.Process, letter string) {
		letters++
		letter = string(rune('a' + letters%26))
		return testproc.Start(t, "server", letter, strconv.Itoa(size), "tcp4", address, "1m"), letter
	}
	old, _ := fresh("127.0.0.1:0")
	address := old.Ask("listen")

	// How long each step takes, to spread the kills over all of it.
	var span [3]time.Duration
	begun := time.Now()
	next, letter := fresh(address)
	for i, ask := range []func() string{
		func() string { return next.Ask("listen") },
		func() string { return next.Ask("takeover 0") },
		func() string { return old.Ask("drain") },
	} {
		require.NotContains(t, ask(), "error")
		span[i] = time.Since(begun)
		begun = time.Now()
	}
	require.Equal(t, "ok", next.Ask("settled"))
	old, oldLetter := next, letter

	when := map[string]int{}
	allLost, most, outage, allAnswered := 0, 0, 0, 0
	for range number(t, "REUSE_TEST_KILLS", 20) {
		stop := requests(address, clients)
		next, letter := fresh(address)
		killOld := r.IntN(2) == 0
		victim := next
		if killOld {
			victim = old
		}
		var killed, gone time.Time
		var step atomic.Value
		during := "none" // of the steps the victim died in
		dead := make(chan struct{})
		timer := time.AfterFunc(time.Hour, func() {
			defer close(dead)
			during, killed = step.Load().(string), time.Now()
			victim.Kill()
			gone = time.Now()
		})
		chosen := r.IntN(len(span))
		delay := time.Duration(r.Int64N(int64(span[chosen])))
		begins := func(i int, name string) {
			step.Store(name)
			if i == chosen {
				timer.Reset(delay)
			}
		}
		begins(0, "listen")
		isDead := func() bool {
			select {
			case <-dead:
				return true
			default:
				return false
			}
		}
		// The hand-over, until somebody is missing. Whoever is asked and killed does not
		// answer.
		took, drained := false, false
		answer, alive := next.Attempt("listen")
		listened := time.Now()
		if alive {
			require.Equal(t, address, answer)
			begins(1, "takeover")
			answer, alive = next.Attempt("takeover 0")
			took = alive && answer == "ok"
		}
		if took && !isDead() {
			begins(2, "drain")
			drained = true
			command := "drain"
			if !killOld {
				// When its successor is killed, the old one gets the connections again, and
				// its queue may not be empty for long.
				command = "drain 0 2s"
			}
			answer, ok := old.Attempt(command)
			require.True(t, !ok || answer == "ok" || !killOld, answer)
		}
		if timer.Stop() {
			close(dead)
		}
		<-dead
		when[during]++
		what := fmt.Sprintf("seed %d: killed during %s, the old one: %v", seed, during, killOld)

		survivor, survives := old, oldLetter
		until := gone // nobody has lost anything that began later
		nobody := false
		switch {
		case killed.IsZero() || killOld:
			survivor, survives = next, letter
			require.True(t, alive, what)
			if !took { // the members came and went while it looked
				t.Log(what, ": ", answer)
				require.Equal(t, "ok", next.Ask("takeover 0"), what)
			}
			// Its sockets close somewhere between killed and gone: until the newcomer
			// listens, nobody may.
			nobody = killOld && listened.After(killed)
			if nobody && listened.After(gone) {
				until = listened
			}
		case drained: // the old one has closed, although the newcomer is killed: nobody is left
			survivor, survives = fresh(address)
			require.Equal(t, address, survivor.Ask("listen"), what)
			until, nobody = time.Now(), true
		}
		require.Equal(t, map[string]int{survives: 50}, who(t, address, 50), what)
		lost, answered := stop()
		for _, l := range lost {
			require.False(t, killed.IsZero(), "%s: %v", what, l.err)
			assert.False(t, l.end.Before(killed), "%s: lost before the kill: %v", what, l.err)
			assert.False(t, l.begin.After(until), "%s: lost, and begun after it: %v", what, l.err)
		}
		if !nobody {
			assert.LessOrEqual(t, len(lost), clients*2*size, "%s: a spare for each listener, at most", what)
			allLost += len(lost)
			most = max(most, len(lost))
		} else {
			outage += len(lost)
		}
		allAnswered += answered

		// The next newcomer settles, and nothing is left.
		last, lastLetter := fresh(address)
		require.Equal(t, address, last.Ask("listen"))
		require.Equal(t, "ok", last.Ask("takeover 0"))
		require.Equal(t, "ok", survivor.Ask("drain"))
		require.Equal(t, "ok", last.Ask("settled"))
		assert.Equal(t, size, listeners(t, address), what)
		l := join(t, address)
		assert.False(t, attached(t, l), what)
		require.NoError(t, l.Close())
		g, err := group.Config{Size: 1}.Listen(t.Context(), "tcp4", address)
		require.NoError(t, err)
		name := group.LockName(g)
		require.NoError(t, g.Close())
		lock, err := net.Listen("unix", name)
		require.NoError(t, err, "the lock is free")
		require.NoError(t, lock.Close())
		for _, p := range []*testproc.Process{old, next, survivor} {
			p.Kill()
		}
		old, oldLetter = last, lastLetter
	}
	t.Log("killed during ", when, "; ", allAnswered, " answered, ", allLost, " lost, ", most, " at most by one kill, ", outage, " while nobody was left")
	assert.NotZero(t, allAnswered)
}
