package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"jackdaw/internal/freeport"
)

// Server is a process under measurement.
type Server struct {
	Addresses map[string]string // by services
	Began     time.Time

	name  string
	cmd   *exec.Cmd
	log   string // the file with what it says
	ended chan struct{}
}

// Start runs a program under a name of ours, and keeps what it says in a file of dir. It ends at the latest with ctx; Stop
// must be called.
func Start(ctx context.Context, dir, name string, addresses map[string]string, program string, args ...string) (*Server, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &Server{
		Addresses: addresses, Began: time.Now(),
		name: name, cmd: exec.CommandContext(ctx, program, args...), log: log.Name(), ended: make(chan struct{}),
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children end with it
	s.cmd.Cancel = s.kill
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	return s, nil
}

// Stop ends the process and all that descend from it. One with children may end them itself, so that what they have spent
// counts as ours; then all are killed, who have nothing to lose.
func (s *Server) Stop() {
	if tree, err := tree(s.PID()); err == nil && len(tree) > 1 {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.ended:
		case <-time.After(5 * time.Second):
		}
	}
	_ = s.kill()
	<-s.ended
}

// kill kills the group of processes.
func (s *Server) kill() error { return syscall.Kill(-s.PID(), syscall.SIGKILL) }

// PID is the process's number.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Name is what Start was told.
func (s *Server) Name() string { return s.name }

// check returns an error, with the end of the log, if the process has ended.
func (s *Server) check() error {
	select {
	case <-s.ended:
	default:
		return nil
	}
	said, _ := os.ReadFile(s.log)
	return fmt.Errorf("%s has ended (%v): %s", s.name, s.cmd.ProcessState, said[max(0, len(said)-2000):])
}

// Until repeats an attempt until it succeeds, while the server lives, for ten minutes at most. The pauses grow with the time
// that has passed, so that the moment is known to half a percent and waiting costs little.
func (s *Server) Until(ctx context.Context, pause time.Duration, try func() error) error {
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
		if stopped := Sleep(ctx, max(pause, passed/200)); stopped != nil {
			return errors.Join(stopped, err)
		}
	}
}

// FreeAddresses are addresses on loopback, one for each service, on which nobody listens at the moment.
func FreeAddresses(services ...string) (map[string]string, error) {
	addresses := make(map[string]string)
	for _, service := range services {
		l, err := freeport.Listen("127.0.0.1")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses[service] = l.Addr().String()
	}
	return addresses, nil
}
