package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jackdaw/internal/inherit"
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

// Who has begun to ask before the socket is closed is answered, though the daemon waits for the end of his question.
func TestAdminLastAnswer(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("sock")
	conn, err := net.Dial("unix", f.at("sock"))
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	fmt.Fprint(conn, "GET /readyz HTTP/1.1\r\nHost: jackdaw\r\n")
	f.mustAnswer("sock") // who has come first was let in, too
	var closing sync.WaitGroup
	closing.Go(f.end)
	defer closing.Wait()
	for {
		other, err := net.Dial("unix", f.at("sock"))
		if err != nil {
			break
		}
		other.Close()
	}
	fmt.Fprint(conn, "\r\n")
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || answer != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("the answer is %q, %v", answer, err)
	}
}

// A question that comes to a process that has been replaced is put to the next one.
func TestAdminAskAgain(t *testing.T) {
	former := newAdminFixture(t)
	former.serve("sock")
	next := newAdmin(former.log, former.counts, inherit.NewSockets())
	t.Cleanup(next.end)
	former.orders.close(errNotServing)
	if _, _, err := openProcess(t.Context(), former.at("sock"), http.MethodGet, url.URL{Path: "/certs"}); !errors.Is(err, errNotServing) {
		t.Errorf("the former process says %v", err)
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		if err := tell(t.Context(), former.at("sock"), "GET /certs", nil, new(certsReport)); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(2 * askAgain) // so that it has been told at least once
	next.apply(former.at("next"), former.certs)
	must(t, os.Rename(former.at("next"), former.at("sock")))
	asking.Wait()
}
