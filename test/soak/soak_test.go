//go:build linux

// Package soak restarts servers under load and counts the requests that get no answer.
//
//	go test ./test/soak -v -parallel 1 -timeout 0 -duration 10m
//	go test ./test/soak -v -run TestKill/udp -duration 1m
//
// Each service runs in a network namespace of its own.
package soak

import (
	"flag"
	"fmt"
	"io"
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
	"golang.org/x/sys/unix"

	"example.com/reuse/internal/testproc"
)

var duration = flag.Duration("duration", 500*time.Millisecond, "`time` for which each service is restarted")

// For the processes that testproc.Netns starts: the flag, and a file for the reports.
const (
	durationEnv = "REUSE_SOAK_DURATION"
	reportEnv   = "REUSE_SOAK_REPORT"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(serverEnv); text != "" {
		if err := serve(text); err != nil {
			log.Fatal("server: ", err)
		}
		return
	}
	flag.Parse()
	if text, ok := os.LookupEnv(durationEnv); ok {
		_ = flag.Set("duration", text)
		os.Exit(m.Run())
	}
	report, err := os.CreateTemp("", "soak")
	if err != nil {
		log.Fatal(err)
	}
	os.Setenv(reportEnv, report.Name())
	os.Setenv(durationEnv, duration.String())
	status := m.Run()
	_, _ = io.Copy(os.Stdout, report)
	os.Remove(report.Name())
	os.Exit(status)
}

// A shape is a number of services on one address, each with its own Name.
type shape struct {
	name, network    string
	names, listeners int
	option           int    // of TCP, set to 100 on the listeners
	sysctl           string // below /proc/sys/net, with a value
	counter          string // of /proc/net/netstat, which shows that option and sysctl had an effect
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
		{name: "tcp-defer", network: "tcp", names: 1, listeners: 2, option: unix.TCP_DEFER_ACCEPT, counter: "TCPDeferAcceptDrop"},
		{name: "tcp-fastopen", network: "tcp", names: 1, listeners: 1, option: unix.TCP_FASTOPEN, sysctl: "ipv4/tcp_fastopen=3", counter: "TCPFastOpenPassive"},
		{name: "tcp-cookies", network: "tcp", names: 1, listeners: 1, sysctl: "ipv4/tcp_syncookies=2", counter: "SyncookiesRecv"},
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
			s.unheld += lost
			return
		}
		// Each Accept loop can have one request that is not yet counted.
		may := victim.accepted() - s.load.answers[victim.pid()] + victim.Listeners
		assert.LessOrEqual(s.t, lost, may, "lost, and accepted by the killed process: %v", s.load.reasons)
	}, func(s *soak) {
		s.notes = fmt.Sprintf(" (%d while no process held the sockets)", s.unheld)
		assert.Zero(s.t, s.load.lost-s.killed, "lost when no process was killed")
	})
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
	t              *testing.T
	dir            string // for sockets and counts
	load           *load
	running        []*process // the current one of each Name
	restarts       int
	killed, unheld int // requests lost when a process was killed, and those of them that no process could have held
	notes          string
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
				n := counter(t, sh.counter)
				assert.Positive(t, n, sh.counter)
				s.notes += fmt.Sprintf(" (%s %d)", sh.counter, n)
			}
			l, quiet, during := s.load, p99(s.load.took[0]), p99(s.load.took[1])
			line := fmt.Sprintf("%-24s %5d restarts %8d requests %6d lost%s; p99 %.1f ms, in a restart %.1f ms (%.1f times) %v\n",
				t.Name(), s.restarts, l.sent, l.lost, s.notes, quiet, during, during/quiet, l.reasons)
			t.Log(line)
			report, err := os.OpenFile(os.Getenv(reportEnv), os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			defer report.Close()
			_, err = report.WriteString(line)
			require.NoError(t, err)
		})
	}
}

// run starts the servers and the clients, and restarts for the time of the flag.
func (s *soak) run(restart func(s *soak)) {
	if name, value, ok := strings.Cut(s.sysctl, "="); ok {
		require.NoError(s.t, os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0))
	}
	sv := service{Network: s.network, Address: ":8080", Listeners: s.listeners, Option: s.option, Counts: s.dir}
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
	for end := time.Now().Add(*duration); s.restarts == 0 || time.Now().Before(end); s.restarts++ {
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		s.load.restarting.Store(true)
		restart(s)
		s.load.restarting.Store(false)
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
	step := []string{"", "sockets", "listening", "current"}[rand.IntN(4)]
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
		return old, step == "listening" || step == "current"
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
