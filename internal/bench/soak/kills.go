//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A fate is what happens to the old or the new process at a step of a hand-over.
// Run returns the process that was killed, and whether another one had the sockets too.
type fate struct {
	name string
	run  func(s *soak, step string) (victim *process, others bool, err error)

	times           int
	accepted, alone int // requests lost
}

// kills is the mode of that name. What the killed process had accepted may be lost. If no
// other process had the sockets, so may what it had queued, and the requests that begin
// until the next one listens. Nothing else is lost, and the next process starts.
func (s *soak) kills() error {
	fates := []*fate{
		{name: "old killed", run: (*soak).killOld}, {name: "new killed", run: (*soak).killNew},
		{name: "old stopped", run: (*soak).stopOld},
	}
	defer func() {
		for _, f := range fates {
			s.notes += fmt.Sprintf("  %s %d times; %d lost that it had accepted, %d while no process had the sockets\n", f.name, f.times, f.accepted, f.alone)
		}
	}()
	for range s.options.restarts {
		if err := s.wait(); err != nil {
			return err
		}
		f := fates[min(rand.N(7)/3, 2)]
		step := []string{"starting", "sockets", "listening", "current"}[rand.N(4)]
		if err := s.round(f, step); err != nil {
			return fmt.Errorf("%s at %q: %w", f.name, step, err)
		}
	}
	return nil
}

func (s *soak) round(f *fate, step string) error {
	f.times++
	before := s.lost()
	victim, others, err := f.run(s, step)
	if err != nil {
		return err
	}
	s.load.rest.Lock() // every request that has begun is answered or lost
	defer s.load.rest.Unlock()
	lost := s.lost() - before
	if !others { // the requests outside the gap are counted by run
		f.alone += lost
		return nil
	}
	f.accepted += lost
	may := 0
	if victim != nil { // an accept loop has one connection that it has not counted yet
		may = int(victim.accepted.Load()) - s.load.answers(victim.pid) + victim.Listeners
	}
	if lost > may {
		return fmt.Errorf("%d lost, although the process had accepted at most %d that it had not answered", lost, may)
	}
	return nil
}

// lost is how many requests were lost in gaps.
func (s *soak) lost() int { return s.load.now(fresh).lostInGap + s.load.now(datagram).lostInGap }

// kill kills a process, at once or some milliseconds from now. A gap begins.
func (s *soak) kill(p *process) {
	time.Sleep(time.Duration(rand.N(2)) * rand.N(3*time.Millisecond))
	s.load.gap.Add(1)
	p.kill()
}

func (s *soak) killOld(step string) (victim *process, others bool, err error) {
	old := s.processes[0]
	next, err := startTo(step, old.service)
	if err != nil {
		return nil, false, err
	}
	s.kill(old)
	s.processes[0] = next
	if step == "starting" || step == "sockets" {
		_, err = next.await("listening")
	}
	s.load.gap.Add(1)
	if err == nil && step != "current" {
		_, err = next.await("current")
	}
	return old, step != "starting", err
}

func (s *soak) killNew(step string) (victim *process, others bool, err error) {
	old := s.processes[0]
	next, err := startTo(step, old.service)
	if err != nil {
		return nil, false, err
	}
	s.kill(next)
	after, err := start(old.service)
	if err != nil {
		return nil, false, err
	}
	s.processes[0] = after
	words, err := after.await("sockets")
	if err == nil {
		others = words[0] == strconv.Itoa(old.pid) // it had not committed
		_, err = after.await("listening")
	}
	if !others { // until it closes its packet sockets, the kernel chooses them too
		err = errors.Join(err, old.replaced())
	}
	s.load.gap.Add(1)
	if err == nil {
		_, err = after.await("current")
	}
	if others {
		err = errors.Join(err, old.replaced())
	}
	return next, others, err
}

// stopOld stops the old process until the new one has given up. The old one serves on.
func (s *soak) stopOld(string) (victim *process, others bool, err error) {
	old := s.processes[0]
	hold := old.service
	hold.Hold = true
	next, err := startTo("listening", hold)
	if err != nil {
		return nil, false, err
	}
	defer next.kill()
	if err := errors.Join(old.freeze(), next.tell()); err != nil {
		return nil, false, err
	}
	_, gaveUp := next.await("current")
	if err := syscall.Kill(old.pid, syscall.SIGCONT); err != nil {
		return nil, false, err
	}
	if gaveUp == nil || !strings.Contains(gaveUp.Error(), strconv.Itoa(old.pid)) {
		return nil, false, fmt.Errorf("the new process did not give up and name the old one: %w", gaveUp)
	}
	for begin, n := time.Now(), s.load.answers(old.pid); s.load.answers(old.pid) == n; time.Sleep(time.Millisecond) {
		if time.Since(begin) > old.Patience {
			return nil, false, errors.New("the old process does not serve on")
		}
	}
	return nil, true, nil
}
