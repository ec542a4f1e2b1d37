package integration

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logReader has the end of a jackdaw's log where it would be read.
type logReader struct{ *os.File }

// logsToPipe starts jackdaw again, with a log that goes into a small pipe. It has to be stopped.
func (jd *jackdaw) logsToPipe() logReader {
	jd.t.Helper()
	must(jd.t, jd.stop())
	r, w, err := os.Pipe()
	must(jd.t, err)
	jd.t.Cleanup(func() { r.Close() })
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
	must(jd.t, err)
	cmd := jd.command(built(jd.t), "serve", "-c", jd.file)
	cmd.Stderr = w
	jd.process = startProcess(jd.t, jd.log, cmd)
	w.Close()
	jd.answers(jd.t, "tcp", jd.at(portIMAPS))
	jd.answers(jd.t, "unix", jd.adminSocket())
	return logReader{r}
}

// babbles has jackdaw log more than there is room for.
func (jd *jackdaw) babbles() {
	jd.t.Helper()
	lost := regexp.MustCompile(`(?m)^jackdaw_log_lost_lines_total [1-9]`)
	for !lost.MatchString(jd.asked("GET", "/metrics")) {
		for range 10 {
			jd.asked("POST", "/kick?backend="+strings.Repeat("nowhere", 1800))
		}
	}
}

// asked is what the admin socket answers.
func (jd *jackdaw) asked(method, question string) string {
	jd.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", jd.adminSocket())
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://jackdaw"+question, nil)
	must(jd.t, err)
	response, err := transport.RoundTrip(request)
	must(jd.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(jd.t, err)
	if response.StatusCode != http.StatusOK {
		jd.t.Fatalf("the admin socket answers %s: %s", response.Status, text)
	}
	return string(text)
}

// follow reads the log from now on into where jd looks for it.
func (r logReader) follow(t testing.TB, jd *jackdaw) {
	t.Helper()
	file, err := os.OpenFile(jd.log, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	go func() { // until the process has ended
		_, _ = io.Copy(file, r)
		file.Close()
	}()
}

// TestLogNobodyReads: a log that nobody reads holds up nobody. As it is read again, it has what there was room for, and says how much
// is missing; and what is said later.
func TestLogNobodyReads(t *testing.T) {
	t.Parallel()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	reader := jd.logsToPipe()
	for range 20 {
		jd.served()
	}
	jd.babbles()
	for range 20 {
		jd.served()
	}
	reader.follow(t, jd)
	jd.logged(t, `"level":"warn"`, `"msg":"log lines lost"`, `"lines":`)
	if n := jd.count(`"msg":"login"`); n != 20 {
		t.Errorf("the log has %d of the logins, want the first 20", n)
	}
	jd.login("mail.a.example", "after@a.example").conn.Close()
	jd.logged(t, `"msg":"login"`, `"user":"after@a.example"`)
	if n := jd.count(`"msg":"log lines lost"`); n != 1 {
		t.Errorf("the log tells of losses %d times", n)
	}
	must(t, jd.stop())
}

// TestLogReaderGone: when the reader of the log has gone, or takes nothing, clients are served, and a stop is a stop.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	for _, gone := range []bool{true, false} {
		reader := jd.logsToPipe()
		if gone {
			reader.Close()
		}
		jd.babbles()
		jd.served()
		there := jd.login("mail.a.example", "alice@a.example")
		must(t, jd.stop())
		there.until("* BYE")
	}
}
