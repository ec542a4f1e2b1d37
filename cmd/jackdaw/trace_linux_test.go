package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"jackdaw/internal/smallroom"
)

// A trace into a file on a full disk ends, and says so. What has had room is there, and the daemon hears that nobody wants more.
func TestTraceOnFullDisk(t *testing.T) {
	dir := smallroom.Enter(t)
	if dir == "" {
		return
	}
	gone := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "C: a NOOP\n")
		}
	}))
	socket, file := filepath.Join(t.TempDir(), "socket"), filepath.Join(dir, "trace")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server.Listener.Close()
	server.Listener = l
	server.Start()
	defer server.Close()
	cmd := traceCommand()
	cmd.SetArgs([]string{"alice", "--socket", socket, "--to", file})
	cmd.SetErr(io.Discard)
	cmd.SetOut(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), file) {
		t.Errorf("it ends with %v", err)
	}
	<-gone
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "C: a NOOP\nC: a NOOP\n") {
		t.Errorf("there are %d octets, %v", len(text), err)
	}
}
