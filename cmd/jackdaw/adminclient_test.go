package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A question that the daemon cannot answer is answered all the same.
func TestAdminQuestions(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("sock")
	for _, tt := range []struct {
		question string
		details  url.Values
		want     string
	}{
		{"/frobnicate", nil, "does not know /frobnicate: it is of another version"},
		{"/certs", url.Values{"expiring": {"soon"}}, `says: "soon" is no time such as "14d" or "36h"`},
		{"/certs", url.Values{"problems": {"some"}}, `says: `},
	} {
		err := tell(t.Context(), f.at("sock"), "GET "+tt.question, tt.details, nil)
		if want := "the daemon at " + f.at("sock") + " " + tt.want; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// An order waits for its turn, however long the one before it takes, and not as long only as it may take to be read.
func TestOrderWaits(t *testing.T) {
	f := newAdminFixture(t)
	server := httptest.NewUnstartedServer(f.handler())
	server.Config.ReadTimeout = 20 * time.Millisecond
	server.Start()
	defer server.Close()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	done := make(chan int)
	go func() {
		response, err := client.Post(server.URL+"/reload", "", nil)
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		response.Body.Close()
		done <- response.StatusCode
	}()
	select {
	case status := <-done:
		t.Fatalf("it is answered %d before its turn", status)
	case <-time.After(200 * time.Millisecond):
	}
	one := <-f.orders.placed
	one.done <- outcome{answer: struct{}{}}
	if status := <-done; status != http.StatusOK {
		t.Errorf("it is answered %d", status)
	}
}

// The daemon says what it knows, and does nothing.
func TestAdminMethods(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("sock")
	for method, want := range map[string]string{
		http.MethodGet: "200 OK", http.MethodHead: "200 OK",
		http.MethodPost: "405 Method Not Allowed", http.MethodDelete: "405 Method Not Allowed",
	} {
		conn, err := net.Dial("unix", f.at("sock"))
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		fmt.Fprintf(conn, "%s /certs HTTP/1.1\r\nHost: jackdaw\r\nConnection: close\r\n\r\n", method)
		buffer := make([]byte, 100)
		n, err := conn.Read(buffer)
		must(t, err)
		conn.Close()
		if status, _, _ := strings.Cut(string(buffer[:n]), "\r\n"); status != "HTTP/1.1 "+want {
			t.Errorf("%s is answered %q, want %s", method, status, want)
		}
	}
}

// Whoever cannot ask is told what to do about it.
func TestDescribeDial(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ENOENT:       "no daemon answers at /run/sock; is it running, and is that its [admin] socket?",
		syscall.ECONNREFUSED: "no daemon answers at /run/sock; is it running, and is that its [admin] socket?",
		syscall.EACCES:       "asking the daemon at /run/sock: permission denied; ask as root, or as its user or group",
		syscall.EPIPE:        "asking the daemon at /run/sock: connect: broken pipe",
	} {
		if got := describeDial("/run/sock", fmt.Errorf("connect: %w", err)); got.Error() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
