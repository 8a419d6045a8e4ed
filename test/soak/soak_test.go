//go:build linux

// Package soak restarts servers under load and counts the requests that get no answer.
//
//	REUSE_SOAK_DURATION=10m REUSE_SOAK_REPORT=/tmp/report go test ./test/soak -parallel 1 -timeout 0
//	REUSE_SOAK_DURATION=1m go test ./test/soak -run TestKill/udp
//
// Each service runs in a network namespace of its own, for a time that is short by default.
// The report has a line for each service.
package soak

import (
	"cmp"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"example.com/reuse/internal/testproc"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(serverEnv); text != "" {
		if err := serve(text); err != nil {
			log.Fatal("server: ", err)
		}
		return
	}
	os.Exit(m.Run())
}

// A shape is a number of services on one address, each with its own Name.
type shape struct {
	name, network    string
	names, listeners int
	deferAccept      bool
	sysctl           string // below /proc/sys/net, with a value
	counter          string // of /proc/net/netstat, which shows that these had an effect
}

var (
	simple = []shape{
		{name: "tcp", network: "tcp", names: 1, listeners: 1},
		{name: "tcp-4", network: "tcp", names: 1, listeners: 4},
		{name: "unix", network: "unix", names: 1, listeners: 1},
		{name: "udp", network: "udp", names: 1, listeners: 1},
		{name: "udp-4", network: "udp", names: 1, listeners: 4},
	}
	special = []shape{
		{name: "tcp-workers", network: "tcp", names: 3, listeners: 2},
		{name: "udp-workers", network: "udp", names: 3, listeners: 2},
		// The kernel keeps a handshake open until the client sends its request.
		{name: "tcp-defer", network: "tcp", names: 1, listeners: 2, deferAccept: true, counter: "TCPDeferAcceptDrop"},
		{name: "tcp-full", network: "tcp", names: 1, listeners: 1, sysctl: "core/somaxconn=1", counter: "ListenOverflows"},
	}
)

// A hand-over loses no request.
func TestHandover(t *testing.T) {
	t.Parallel()
	each(t, slices.Concat(simple, special), func(s *soak) {
		old := &s.running[rand.IntN(len(s.running))]
		next := s.start((*old).service)
		if s.name == "tcp-full" { // its queue fills while it is stopped
			require.NoError(s.t, syscall.Kill((*old).pid(), syscall.SIGSTOP))
			time.Sleep(50 * time.Millisecond)
			require.NoError(s.t, syscall.Kill((*old).pid(), syscall.SIGCONT))
		}
		next.await("current")
		(*old).wait()
		*old = next
	}, func(s *soak) { assert.Zero(s.t, s.load.lost) })
}

// A process that is killed takes with it what it had accepted. Only if no other process held
// the sockets at that time, requests that were queued or arrived later are lost too. The
// next process always starts.
func TestKill(t *testing.T) {
	t.Parallel()
	each(t, simple, func(s *soak) {
		lost := s.load.now()
		victim, held := s.kill()
		s.load.rest.Lock() // each request that has begun is answered or lost
		defer s.load.rest.Unlock()
		lost = s.load.now() - lost
		s.killed += lost
		if !held {
			return
		}
		// Each Accept loop can have one request that is not yet counted.
		may := victim.accepted() - s.load.answers[victim.pid()] + victim.Listeners
		assert.LessOrEqual(s.t, lost, may, "lost, and accepted by the killed process: %v", s.load.reasons)
	}, func(s *soak) { assert.Zero(s.t, s.load.lost-s.killed, "lost when no process was killed") })
}

// The load sees what a restart without a hand-over loses.
func TestNaive(t *testing.T) {
	t.Parallel()
	each(t, simple, func(s *soak) {
		s.running[0].end()
		s.running[0] = s.start(s.running[0].service)
		s.running[0].await("current")
	}, func(s *soak) { assert.Positive(s.t, s.load.lost) })
}

// A soak is of one shape in one test.
type soak struct {
	shape
	t        *testing.T
	dir      string // for sockets and counts
	load     *load
	running  []*process // the current one of each Name
	restarts int
	killed   int // requests lost when a process was killed
}

// each restarts the services of each shape in its own network namespace, and reports.
func each(t *testing.T, shapes []shape, restart, verdict func(s *soak)) {
	for _, sh := range shapes {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			if !testproc.Netns(t) {
				return
			}
			s := &soak{shape: sh, t: t, dir: t.TempDir()}
			s.run(restart)
			verdict(s)
			if sh.counter != "" {
				assert.Positive(t, counter(t, sh.counter), sh.counter)
			}
			report, err := os.OpenFile(cmp.Or(os.Getenv("REUSE_SOAK_REPORT"), os.DevNull), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			require.NoError(t, err)
			defer report.Close()
			_, err = fmt.Fprintf(report, "%-24s %5d restarts %8d requests %6d lost %v\n",
				t.Name(), s.restarts, s.load.sent, s.load.lost, s.load.reasons)
			require.NoError(t, err)
		})
	}
}

// run starts the servers and the clients, and restarts for a time.
func (s *soak) run(restart func(s *soak)) {
	duration, err := time.ParseDuration(cmp.Or(os.Getenv("REUSE_SOAK_DURATION"), "500ms"))
	require.NoError(s.t, err)
	if name, value, ok := strings.Cut(s.sysctl, "="); ok {
		require.NoError(s.t, os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0))
	}
	sv := service{Network: s.network, Address: ":8080", Listeners: s.listeners, DeferAccept: s.deferAccept, Counts: s.dir}
	to := "127.0.0.1:8080"
	if s.network == "unix" {
		to = filepath.Join(s.dir, "socket")
		sv.Address = to
	}
	test, _, _ := strings.Cut(s.t.Name(), "/")
	for i := range s.names {
		if test != "TestNaive" {
			sv.Name = fmt.Sprintf("soak-%d-%d", os.Getpid(), i)
		}
		p := s.start(sv)
		p.await("current")
		s.running = append(s.running, p)
	}
	s.load = startLoad(sv, to, test != "TestKill") // which compares connections with answers
	for end := time.Now().Add(duration); s.restarts == 0 || time.Now().Before(end); s.restarts++ {
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		restart(s)
	}
	s.load.end()
	for _, p := range s.running {
		p.end()
	}
}

// kill kills the old or the new process at some moment of a hand-over. It returns whether
// another process held the sockets then.
func (s *soak) kill() (victim *process, held bool) {
	old := s.running[0]
	next := s.start(old.service)
	step := []string{"", "sockets", "current"}[rand.IntN(3)]
	if step != "" {
		next.await(step)
	}
	time.Sleep(time.Duration(rand.IntN(2)) * time.Duration(rand.IntN(3_000)) * time.Microsecond)
	if rand.IntN(2) == 0 {
		old.kill()
		if step != "current" {
			next.await("current")
		}
		s.running[0] = next
		return old, step != ""
	}
	next.kill()
	after := s.start(old.service)
	held = after.await("sockets") == strconv.Itoa(old.pid()) // it had not handed over
	after.await("current")
	old.wait()
	s.running[0] = after
	return next, held
}

// counter reads a counter of this network namespace.
func counter(t *testing.T, name string) (n int) {
	text, err := os.ReadFile("/proc/self/net/netstat")
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names, then values
		if k := slices.Index(strings.Fields(lines[i]), name); k >= 0 {
			n, err = strconv.Atoi(strings.Fields(lines[i+1])[k])
			require.NoError(t, err)
		}
	}
	return n
}
