package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// server is a process under measurement.
type server struct {
	name      string
	addresses map[string]string // by services; every server has "imaps"

	cmd   *exec.Cmd
	log   string // the file with what it says
	began time.Time
	ended chan struct{}
}

// startServer runs a program. It ends at the latest with the whole run; stop must be called.
func (b *bench) startServer(addresses map[string]string, program string, args ...string) (*server, error) {
	name := filepath.Base(program)
	log, err := os.Create(filepath.Join(b.temp, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &server{
		name: name, addresses: addresses,
		cmd: exec.CommandContext(b.ctx, program, args...), log: log.Name(), began: time.Now(), ended: make(chan struct{}),
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	return s, nil
}

// stop kills the process, which has nothing to lose.
func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// check returns an error, with the end of the log, if the process has ended.
func (s *server) check() error {
	select {
	case <-s.ended:
	default:
		return nil
	}
	said, _ := os.ReadFile(s.log)
	return fmt.Errorf("%s has ended (%v): %s", s.name, s.cmd.ProcessState, said[max(0, len(said)-2000):])
}

// until repeats an attempt until it succeeds, while the server lives, for ten minutes at most. The pauses grow with the time
// that has passed, so that the moment is known to half a percent and waiting costs little.
func (s *server) until(ctx context.Context, pause time.Duration, try func() error) error {
	const limit = 10 * time.Minute
	began := time.Now()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if dead := s.check(); dead != nil {
			return dead
		}
		passed := time.Since(began)
		if passed > limit {
			return fmt.Errorf("after %v: %w", limit, err)
		}
		if stopped := sleep(ctx, max(pause, passed/200)); stopped != nil {
			return errors.Join(stopped, err)
		}
	}
}

// freeAddresses are addresses on loopback, one for each service, on which nobody listens at the moment.
func freeAddresses(services ...string) (map[string]string, error) {
	addresses := make(map[string]string)
	for _, service := range services {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses[service] = l.Addr().String()
	}
	return addresses, nil
}
