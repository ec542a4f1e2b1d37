package inherit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Heir is a process that was started to take over.
type Heir struct {
	PID int

	conn    *net.UnixConn
	in      *json.Decoder
	process *os.Process
	ended   chan struct{} // closed when the process has ended
	status  *os.ProcessState
}

// Process is one that has sessions, and its bell.
type Process struct {
	PID  int
	Bell *Bell
}

// Start runs a program, and tells it until the end of ctx what there is to inherit. When it ends before it serves, or says that it
// cannot, an error or one of the Heir's methods tells why, and the caller goes on.
func Start(ctx context.Context, program string, args []string, sockets *Sockets, processes []Process) (*Heir, error) {
	what, fds, err := sockets.describe()
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	if err != nil {
		return nil, err
	}
	text := will{PID: os.Getpid(), Sockets: what}
	for _, p := range processes {
		fd, err := duplicate(p.Bell.conn)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
		text.Doors = append(text.Doors, door{PID: p.PID})
	}
	const first = 4 // after the standard ones and the one over which we speak
	for i := range text.Sockets {
		text.Sockets[i].Descriptor = first + i
	}
	for i := range text.Doors {
		text.Doors[i].Descriptor = first + len(text.Sockets) + i
	}
	h, err := fork(program, args, fds)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	if err := h.say(ctx, text); err != nil {
		return nil, err
	}
	return h, nil
}

// fork runs the program with the descriptors, behind the standard ones and the one over which we speak.
func fork(program string, args []string, fds []int) (*Heir, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	speech, err := duplicate(theirs)
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer syscall.Close(speech)
	files := []uintptr{0, 1, 2, uintptr(speech)}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	pid, err := syscall.ForkExec(program, args, &syscall.ProcAttr{Env: environment(os.Environ()), Files: files})
	if err != nil {
		ours.Close()
		return nil, err
	}
	h := &Heir{PID: pid, conn: ours, in: json.NewDecoder(ours), ended: make(chan struct{})}
	if h.process, err = os.FindProcess(pid); err != nil {
		ours.Close()
		return nil, err
	}
	go func() {
		h.status, _ = h.process.Wait()
		close(h.ended)
	}()
	return h, nil
}

// environment is that of the next process: what is about this process alone is left out.
func environment(own []string) []string {
	next := slices.DeleteFunc(slices.Clone(own), func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		return slices.Contains([]string{variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"}, name)
	})
	return append(next, variable+"="+strconv.Itoa(3))
}

// say tells the other something.
func (h *Heir) say(ctx context.Context, what any) error {
	return h.talk(ctx, func() error { return json.NewEncoder(h.conn).Encode(what) })
}

// hear waits for the other's word.
func (h *Heir) hear(ctx context.Context) error {
	return h.talk(ctx, func() error {
		var a answer
		if err := h.in.Decode(&a); err != nil || a.Error == "" {
			return err
		}
		return errors.New(a.Error)
	})
}

// talk says or hears something, until ctx ends. On an error it kills the new process.
func (h *Heir) talk(ctx context.Context, deed func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = h.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := deed()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return h.Kill(context.Cause(ctx))
	}
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, gone) {
			return h.Kill(nil)
		}
	}
	return h.Kill(err)
}

// Await waits until the new process is ready. If it cannot be, or ctx ends before, it is killed, and the error says why.
func (h *Heir) Await(ctx context.Context) error { return h.hear(ctx) }

// Give hands over what must not change any more, and waits until the new process serves. If it does not before ctx ends, it is
// killed: it has accepted nobody.
func (h *Heir) Give(ctx context.Context, estate any) error {
	if err := h.say(ctx, estate); err != nil {
		return err
	}
	if err := h.hear(ctx); err != nil {
		return err
	}
	h.conn.Close()
	return nil
}

// Kill ends the new process, unless it ends by itself in a moment, and returns why, or else how it has ended.
func (h *Heir) Kill(why error) error {
	h.conn.Close()
	select {
	case <-h.ended:
	case <-time.After(time.Second):
		_ = h.process.Kill()
		<-h.ended
	}
	if why != nil {
		return fmt.Errorf("process %d: %w", h.PID, why)
	}
	return fmt.Errorf("process %d ended without a word (%v); what it has written stands beside our log", h.PID, h.status)
}
