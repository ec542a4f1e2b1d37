package directories

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A queue that is full is no failure: it moves on.
func TestFullQueue(t *testing.T) {
	path := socketPath(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for { // until nobody gets in
		c, err := dialUnix(ctx, path)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the queue is full") {
				t.Fatal(err)
			}
			break
		}
		defer c.Close()
	}
	listener, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	late := make(chan error, 1)
	go func() {
		c, err := dialUnix(t.Context(), path)
		if err == nil {
			c.Close()
		}
		late <- err
	}()
	for {
		c, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		select {
		case err := <-late:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}
