//go:build !android && !ios

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A load is a number of clients, and what has become of their requests. Every one
// that is sent is answered by some version or lost for some reason.
type load struct {
	url        string
	keep       bool         // connections; they would hide what happens to new ones
	restarting *atomic.Bool // whether a restart is under way

	mu       sync.Mutex
	sent     int
	answered map[int]int
	lost     map[string]int
	repeated int // a kept connection was closed, and the client took another
	quiet    latency
	restart  latency // of requests that saw a restart
}

func newLoad(url string, keep bool, restarting *atomic.Bool) *load {
	return &load{
		url: url, keep: keep, restarting: restarting,
		answered: map[int]int{}, lost: map[string]int{}, quiet: latency{}, restart: latency{},
	}
}

// run is one client: it sends requests, one after the other, until ctx ends.
func (l *load) run(ctx context.Context, interval time.Duration) {
	transport := &http.Transport{DisableKeepAlives: !l.keep}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		l.one(client)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// one sends a request and counts what comes of it. It does not heed the end of the
// load: who has sent a request waits for the answer.
func (l *load) one(client *http.Client) {
	l.mu.Lock()
	l.sent++
	l.mu.Unlock()

	seen := l.restarting.Load()
	begin := time.Now()
	version, conns, err := ask(client, l.url)
	took := time.Since(begin)
	seen = seen || l.restarting.Load()

	l.mu.Lock()
	defer l.mu.Unlock()
	if conns > 1 {
		l.repeated++
	}
	switch {
	case err != nil:
		l.lost[reason(err)]++
		return
	case seen:
		l.restart.add(took)
	default:
		l.quiet.add(took)
	}
	l.answered[version]++
}

// ask sends a request and returns the version that answered, and on how many
// connections it was sent. A new connection is never tried again; a kept one that
// was closed is, by package net/http.
func ask(client *http.Client, url string) (version, conns int, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { conns++ }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, conns, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return 0, conns, err
	}
	var parent int
	n, _ := fmt.Sscanf(string(body), answer, &version, &parent)
	if n < 2 || parent != os.Getpid() {
		return 0, conns, errors.New("answered by something else")
	}
	return version, conns, nil
}

// reason is the innermost error, without the addresses that differ every time.
func reason(err error) string {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "timeout"
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return strings.TrimSuffix(err.Error(), ".") // which Windows writes
}

func (l *load) totals() (answered, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.answered {
		answered += n
	}
	for _, n := range l.lost {
		lost += n
	}
	return answered, lost
}

func (l *load) answeredBy(version int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered[version]
}

// check fails if the counts do not add up.
func (l *load) check(versions int) error {
	answered, lost := l.totals()
	byVersion := 0
	for v := range versions {
		byVersion += l.answeredBy(v + 1)
	}
	if l.sent != answered+lost || byVersion != answered || l.quiet.count()+l.restart.count() != answered {
		return fmt.Errorf("the counts do not add up: %d sent, %d answered (by version %d, with times %d and %d), %d lost",
			l.sent, answered, byVersion, l.quiet.count(), l.restart.count(), lost)
	}
	return nil
}

// A latency counts how long answers took, in steps of 10 µs.
type latency map[time.Duration]int

func (l latency) add(d time.Duration) { l[d.Round(10*time.Microsecond)]++ }

func (l latency) count() (n int) {
	for _, c := range l {
		n += c
	}
	return n
}

// quantile returns the time that the part q took at most; 1 is all.
func (l latency) quantile(q float64) time.Duration {
	n := l.count()
	left := min(int(q*float64(n)), n-1)
	for _, d := range slices.Sorted(maps.Keys(l)) {
		if left -= l[d]; left < 0 {
			return d
		}
	}
	return 0
}
