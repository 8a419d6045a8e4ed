//go:build !android && !ios

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// patience is how long anything may take that takes no time on one machine.
const patience = 5 * time.Second

// perSecond is the number of requests that all clients send in a second.
const perSecond = 8000

// A load is what has become of the requests of some clients.
type load struct {
	mu        sync.Mutex
	Sent      int            `json:"sent"`
	Answered  int            `json:"answered"`
	Lost      int            `json:"lost"`
	Slowest   float64        `json:"slowest_ms"` // answer
	ByVersion map[int]int    `json:"answered_by_version"`
	Reasons   map[string]int `json:"lost_by_reason"`
}

// run is one client. It sends requests, one after the other, until ctx ends. What is
// sent then waits for its answer.
func (l *load) run(ctx context.Context, service string, interval time.Duration, ask func() (string, error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		begin := time.Now()
		answer, err := ask()
		l.count(service, answer, err, time.Since(begin))
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *load) count(service, answer string, err error, took time.Duration) {
	version := 0
	if n, _ := fmt.Sscanf(answer, service+" version %d", &version); n < 1 && err == nil {
		err = errors.New("answered by another server")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Sent == 0 {
		l.ByVersion, l.Reasons = map[int]int{}, map[string]int{}
	}
	l.Sent++
	if err != nil {
		l.Lost++
		l.Reasons[reason(err)]++
		return
	}
	l.Answered++
	l.ByVersion[version]++
	l.Slowest = max(l.Slowest, float64(took.Microseconds())/1000)
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

func (l *load) answeredBy(version int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ByVersion[version]
}

// newClient returns a function that sends a request and returns the answer.
func newClient(network, address string, keep bool) func() (string, error) {
	if network == "udp" {
		return newDatagramClient(address, keep)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: patience}
	return func() (string, error) {
		// A POST, because net/http sends a GET again if a kept connection is closed.
		resp, err := client.Post("http://"+address, "text/plain", nil)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
		return string(body), err
	}
}

func newDatagramClient(address string, keep bool) func() (string, error) {
	var conn net.Conn
	return func() (answer string, err error) {
		if conn == nil || !keep {
			if conn, err = net.Dial("udp", address); err != nil {
				return "", err
			}
		}
		if !keep {
			defer conn.Close()
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			return "", err
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		return string(buf[:n]), err
	}
}
