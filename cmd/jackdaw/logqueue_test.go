package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// slowReader takes what a logQueue writes, when it is let.
type slowReader struct {
	mu   sync.Mutex // who holds it takes nothing
	got  []string   // one for each write
	fail []error    // of the next writes, of which half is taken
}

func (r *slowReader) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.fail) > 0 {
		err := r.fail[0]
		r.fail, text = r.fail[1:], text[:len(text)/2]
		r.got = append(r.got, string(text))
		return len(text), err
	}
	r.got = append(r.got, string(text))
	return len(text), nil
}

// text is all that was taken.
func (r *slowReader) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.got, "")
}

// queueTo is a logQueue that says of losses how many they were.
func queueTo(t *testing.T, out io.Writer) *logQueue {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	return &logQueue{out: out, notice: func(lost uint64) []byte { return fmt.Appendf(nil, "lost %d\n", lost) }}
}

// atReader waits until the writer has taken all lines, and waits for the reader.
func (q *logQueue) atReader(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		q.mu.Lock()
		taken := len(q.waiting) == 0
		q.mu.Unlock()
		if taken {
			return
		}
	}
	t.Fatal("nobody writes")
}

// A reader who takes nothing holds up nobody. What there was no room for is lost, and that is said where it would have stood.
func TestLogQueueLoses(t *testing.T) {
	reader := new(slowReader)
	q := queueTo(t, reader)
	reader.mu.Lock()
	const each = 1000
	many := 3 * logRoom / each
	for i := range many {
		if n, err := fmt.Fprintf(q, "%0*d\n", each-1, i); n != each || err != nil {
			t.Fatalf("line %d: %d, %v", i, n, err)
		}
		if i == 0 {
			q.atReader(t)
		}
	}
	if q.flush(10 * time.Millisecond) {
		t.Error("all is written, which nobody takes")
	}
	reader.mu.Unlock()
	if !q.flush(time.Minute) {
		t.Error("not all is written")
	}
	fmt.Fprintln(q, "after")
	q.flush(time.Minute)
	lines := strings.Split(strings.TrimSuffix(reader.text(), "\n"), "\n")
	kept := len(lines) - 2
	for i, line := range lines[:kept] {
		if line != fmt.Sprintf("%0*d", each-1, i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if want := []string{fmt.Sprint("lost ", many-kept), "after"}; !slices.Equal(lines[kept:], want) || q.losses.Load() != uint64(many-kept) {
		t.Errorf("in the end %q, want %q; %d are counted", lines[kept:], want, q.losses.Load())
	}
	if want := 1 + logRoom/each; kept != want {
		t.Errorf("%d lines are kept, want %d", kept, want)
	}
}

// Where writing fails, on a full disk or as nobody is there, it goes on where it was: no line is torn, none is written twice.
func TestLogQueueGoesOn(t *testing.T) {
	reader := &slowReader{fail: []error{syscall.ENOSPC, syscall.EAGAIN, syscall.EPIPE, errors.New("odd")}}
	q := queueTo(t, reader)
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(io.MultiWriter(q, &want), "line %d\n", i)
	}
	if !q.flush(time.Minute) {
		t.Error("not all is written")
	}
	if got := reader.text(); got != want.String() {
		t.Errorf("written is %q", got)
	}
	if n := q.losses.Load(); n != 0 {
		t.Errorf("%d lines are lost", n)
	}
}

// Several lines go in one write, as many as no other process can tear, and none goes in two.
func TestLogQueueWritesWholeLines(t *testing.T) {
	reader := new(slowReader)
	q := queueTo(t, reader)
	reader.mu.Lock()
	for i := range 200 {
		fmt.Fprintf(q, "%0*d\n", i, i)
	}
	reader.mu.Unlock()
	q.flush(time.Minute)
	for _, piece := range reader.got {
		if !strings.HasSuffix(piece, "\n") || len(piece) > logPiece {
			t.Errorf("%d bytes at once, which end in %q", len(piece), piece[len(piece)-1:])
		}
	}
	if n := len(reader.got); n > 10 {
		t.Errorf("%d writes for %d bytes", n, len(reader.text()))
	}
	long := strings.Repeat("x", 2*logRoom) + "\n"
	fmt.Fprint(q, long)
	fmt.Fprint(q, "short\n")
	q.flush(time.Minute)
	if !strings.HasSuffix(reader.text(), "\n"+long+"short\n") && !strings.HasSuffix(reader.text(), "\n"+long+"lost 1\n") {
		t.Error("the only line is too long")
	}
}

// Each of those who write at a time finds its lines in its order, and a buffer that has become large is not kept.
func TestLogQueueTogether(t *testing.T) {
	reader := new(slowReader)
	q := queueTo(t, reader)
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 500 {
				fmt.Fprintf(q, "%d %d\n", w, i)
			}
		})
	}
	writers.Wait()
	q.flush(time.Minute)
	next := make([]int, 8)
	for line := range strings.Lines(reader.text()) {
		var w, i int
		if _, err := fmt.Sscan(line, &w, &i); err != nil || next[w] != i {
			t.Fatalf("%q, %v; want %d", line, err, next[w])
		}
		next[w]++
	}
	if slices.Min(next) != 500 {
		t.Errorf("written are %v", next)
	}
	reader.mu.Lock()
	for range 100 {
		fmt.Fprintln(q, strings.Repeat("x", 2000))
	}
	reader.mu.Unlock()
	q.flush(time.Minute)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		q.mu.Lock()
		idle, kept := !q.writing, cap(q.waiting)+cap(q.spare)
		q.mu.Unlock()
		if idle {
			if kept > 2*logSpare {
				t.Errorf("%d bytes are kept", kept)
			}
			return
		}
	}
	t.Error("the writer has not ended")
}

// What is lost is told in the log's own form, at any level, and on the page.
func TestLogLossLine(t *testing.T) {
	recent := newRecentLog()
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey = ""
	line := string(lossLine(zapcore.NewJSONEncoder(encoding), recent, 7))
	if want := `{"level":"warn","msg":"log lines lost","lines":7}` + "\n"; line != want {
		t.Errorf("the line is %q", line)
	}
	if lines := recent.list(); len(lines) != 1 || lines[0].Message != "log lines lost" || lines[0].Fields != "lines=7" {
		t.Errorf("the page has %v", lines)
	}
}

// discard is a pipe that is always read.
func discard(b *testing.B) *os.File {
	b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, r) })
	b.Cleanup(func() {
		w.Close()
		reading.Wait()
		r.Close()
	})
	return w
}

// BenchmarkLog is what a line costs who writes it, and with it whoever takes it.
func BenchmarkLog(b *testing.B) {
	line := []byte(strings.Repeat("x", 349) + "\n")
	b.Run("direct", func(b *testing.B) {
		out := zapcore.Lock(discard(b))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = out.Write(line)
			}
		})
	})
	b.Run("queue", func(b *testing.B) {
		q := &logQueue{out: discard(b), notice: func(uint64) []byte { return nil }}
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = q.Write(line)
			}
		})
		q.flush(time.Minute)
	})
}
