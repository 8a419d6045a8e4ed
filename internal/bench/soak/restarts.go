//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A shape is a number of Names on one address, with a number of listeners each.
type shape struct {
	name, network    string
	names, listeners int

	// The clients are far away, and these settings matter.
	far      bool
	option   int
	sysctl   string // below /proc/sys/net, with a value
	full     bool   // the queue is full when the hand-over begins
	counters string // of /proc/net/netstat, to see what happened
}

var shapes = []shape{
	{name: "tcp", network: "tcp", names: 1, listeners: 1},
	{name: "tcp-4", network: "tcp", names: 1, listeners: 4},
	{name: "tcp-workers", network: "tcp", names: 3, listeners: 2},
	{name: "unix", network: "unix", names: 1, listeners: 1},
	{name: "udp", network: "udp", names: 1, listeners: 1},
	{name: "udp-4", network: "udp", names: 1, listeners: 4},
	{name: "far", far: true},
	{name: "far-defer", far: true, option: unix.TCP_DEFER_ACCEPT},
	{name: "far-fastopen", far: true, option: unix.TCP_FASTOPEN, sysctl: "ipv4/tcp_fastopen=3", counters: "TCPFastOpenPassive"},
	{name: "far-cookies", far: true, sysctl: "ipv4/tcp_syncookies=2", counters: "SyncookiesRecv"},
	{name: "far-somaxconn", far: true, sysctl: "core/somaxconn=1", counters: "ListenOverflows SyncookiesFailed"},
	{name: "far-full", far: true, sysctl: "core/somaxconn=200", full: true, counters: "ListenOverflows SyncookiesFailed"},
}

// A soak is of one shape in one mode.
type soak struct {
	options
	shape
	mode      string
	ctx       context.Context
	dir       string // for sockets
	load      *load
	processes []*process      // the current one of each Name
	spare     *process        // in the mode turns, the one that was replaced
	took      []time.Duration // each restart, until the old process has ended
	used      []resources     // in the mode turns, by the one that was replaced
	notes     string
}

// run starts the servers and the clients, and ends them after the mode.
func (s *soak) run() (err error) {
	host := "127.0.0.1"
	patience := 10 * time.Second
	clients := [kinds]int{fresh: s.clients - s.clients/4, kept: s.clients / 4}
	if s.far {
		undo, err := s.setFar()
		if err != nil {
			return err
		}
		defer undo()
		s.network, s.names, s.listeners = "tcp", 1, 1
		host, patience, clients = farHost, 2*time.Minute, [kinds]int{fresh: 300}
		s.requests = 0
		s.think = 4 * time.Second // clients in step would fill the queue again and again
	} else if s.network == "udp" {
		patience, clients = 5*time.Second, [kinds]int{datagram: s.clients}
	} else if s.mode == "kills" { // which compares connections with answers
		clients = [kinds]int{fresh: s.clients}
	}
	sv := service{Network: s.network, Listeners: s.listeners, Option: s.option, Patience: patience}
	to := filepath.Join(s.dir, s.name)
	sv.Address = to
	if s.network != "unix" {
		port := strconv.Itoa(20_000 + rand.N(10_000)) // no ephemeral one, which a client may have while no process listens
		sv.Address, to = ":"+port, net.JoinHostPort(host, port)
	}
	defer func() { // after the clients
		if s.spare != nil {
			s.processes = append(s.processes, s.spare)
		}
		for _, p := range s.processes {
			if err != nil {
				p.kill()
			} else {
				err = p.end()
			}
		}
	}()
	for i := range s.names {
		sv.Name = fmt.Sprintf("soak-%d-%s-%d", os.Getpid(), s.name, i+1)
		p, err := startTo("current", sv)
		if err != nil {
			return err
		}
		s.processes = append(s.processes, p)
	}
	s.load = newLoad(sv, to, clients, s.think)
	if s.mode == "kills" {
		err = s.kills()
	} else {
		err = s.restarts()
	}
	s.load.stop()
	s.load.clients.Wait()
	for k := range kinds {
		if n := s.load.now(k); n.lost > 0 {
			err = errors.Join(err, fmt.Errorf("%d of %d %s lost", n.lost, n.sent, k))
		}
	}
	return err
}

func (s *soak) report() string {
	text := fmt.Sprintf("%s %s", s.mode, s.name)
	if len(s.took) > 0 {
		text += fmt.Sprintf(": %d restarts, until the old process has ended %.1f ms (median), %.1f ms (p99)",
			len(s.took), quantile(s.took, 0.5), quantile(s.took, 0.99))
	}
	text += "\n"
	if s.load != nil {
		text += s.load.report()
	}
	return text + s.notes
}

// wait lets the running processes serve.
func (s *soak) wait() error {
	every := 100 * time.Millisecond
	if s.far {
		every = time.Second
	}
	select {
	case <-time.After(every):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// restarts replaces the process of one Name after the other.
func (s *soak) restarts() error {
	enough := func() bool {
		f, k, d := s.load.now(fresh).sent, s.load.now(kept).sent, s.load.now(datagram).sent
		return len(s.took) >= s.options.restarts && (s.mode == "turns" || max(f, d) >= s.requests && (d > 0 || k >= s.requests*3/10))
	}
	for !enough() {
		if err := s.wait(); err != nil {
			return err
		}
		if err := s.restart(&s.processes[len(s.took)%len(s.processes)]); err != nil {
			return err
		}
	}
	if s.mode != "turns" {
		return nil
	}
	n := len(s.used) / 10 // the first tenth warms up
	from, to := median(s.used[n:2*n+1]), median(s.used[len(s.used)-n-1:])
	s.notes = fmt.Sprintf("  goroutines, descriptors, kB of heap, kB of memory: %v, then %v\n", from, to)
	// A few restarts say nothing about memory, least of all with the race detector.
	memory := n >= 10 && (to[2] > from[2]+500 || to[3] > from[3]+10_000)
	if to[0] > from[0] || to[1] > from[1] || memory {
		return errors.New("a process that replaces and is replaced grows")
	}
	return nil
}

func (s *soak) restart(current **process) (err error) {
	old, next := *current, s.spare
	if s.full {
		if err := s.fill(old); err != nil {
			return err
		}
	}
	s.load.restarting.Store(true)
	defer s.load.restarting.Store(false)
	begin := time.Now()
	if next == nil {
		next, err = start(old.service)
	} else {
		err = next.tell()
	}
	if err != nil {
		return err
	}
	*current, s.spare = next, old // which run ends after an error
	if _, err := next.await("current"); err != nil {
		return err
	}
	words, err := old.await("done")
	if err != nil {
		return err
	}
	if s.mode == "turns" {
		var u resources
		for i := range u {
			if u[i], err = strconv.Atoi(words[i]); err != nil {
				return err
			}
		}
		s.used = append(s.used, u)
	} else {
		s.spare = nil
		if err := old.end(); err != nil {
			return err
		}
	}
	s.took = append(s.took, time.Since(begin))
	return nil
}

func median(list []resources) (m resources) {
	for i := range m {
		var values []int
		for _, r := range list {
			values = append(values, r[i])
		}
		slices.Sort(values)
		m[i] = values[len(values)/2]
	}
	return m
}
