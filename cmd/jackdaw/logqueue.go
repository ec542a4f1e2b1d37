package main

import (
	"bytes"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	logRoom  = 512 << 10 // bytes of lines that wait, while as much is written
	logPiece = 4 << 10   // bytes of a write(2): up to PIPE_BUF, no other process of ours writes in between (pipe(7))
	logSpare = 64 << 10  // bytes of a buffer that is kept for the next lines

	logPause    = 100 * time.Millisecond // until it is tried again to write, on a full disk or to a pipe whose reader has gone
	logPatience = 2 * time.Second        // how long a reader who takes nothing is waited for
)

// newLogger writes to standard error: for people on a terminal, for programs elsewhere, if nothing else is asked for.
func newLogger(format string, level zap.AtomicLevel, recent *recentLog) (*zap.Logger, *logQueue) {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339TimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	encoding.TimeKey = "time"
	encoder := zapcore.NewJSONEncoder(encoding)
	if format == "console" || format == "" && isTerminal(os.Stderr) {
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	queue := &logQueue{out: os.Stderr, notice: func(lost uint64) []byte { return lossLine(encoder, recent, lost) }}
	// What is read in the log is counted by then.
	return zap.New(zapcore.NewTee(recent.core(), zapcore.NewCore(encoder, queue, level))), queue
}

// lossLine says, at any level of the log, that lines are missing.
func lossLine(encoder zapcore.Encoder, recent *recentLog, lost uint64) []byte {
	entry := zapcore.Entry{Level: zapcore.WarnLevel, Time: time.Now(), Message: "log lines lost"}
	fields := []zapcore.Field{zap.Uint64("lines", lost)}
	_ = recent.core().Write(entry, fields) // which cannot fail
	line, err := encoder.EncodeEntry(entry, fields)
	if err != nil { // a time and a number are always encoded
		return nil
	}
	defer line.Free()
	return bytes.Clone(line.Bytes())
}

// logQueue writes lines in their order, and lets nobody wait who has some: where they are not taken as fast as they come, or not at
// all, they are kept, and when there is no room left they are lost, which is said in their place. A goroutine writes while there is
// something to write. Safe for concurrent use.
type logQueue struct {
	out    io.Writer
	notice func(lost uint64) []byte // is the line that says so

	mu      sync.Mutex
	waiting []byte // whole lines
	spare   []byte // empty, to become waiting
	lost    uint64 // lines, after those that wait
	given   uint64 // bytes that were ever to be written
	writing bool   // the goroutine is there

	losses atomic.Uint64 // lines that were ever lost
	moved  atomic.Uint64 // bytes that were ever written
}

// Write takes a line. There is always room for one.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lost > 0 || len(q.waiting) > 0 && len(q.waiting)+len(line) > logRoom {
		q.lost++
		q.losses.Add(1)
		return len(line), nil
	}
	q.add(line)
	if !q.writing {
		q.writing = true
		go q.write()
	}
	return len(line), nil
}

// add has a line wait. q.mu is held.
func (q *logQueue) add(line []byte) {
	q.waiting = append(q.waiting, line...)
	q.given += uint64(len(line))
}

// write writes until nothing waits.
func (q *logQueue) write() {
	for lines := q.take(nil); lines != nil; lines = q.take(lines) {
		for rest := lines; len(rest) > 0; {
			n, err := q.out.Write(rest[:pieceOf(rest)])
			rest = rest[n:]
			q.moved.Add(uint64(n))
			if err != nil { // nobody could be told; what was not written waits, so that no line is torn
				time.Sleep(logPause)
			}
		}
	}
}

// take returns what waits by now, or nil, when the writer is to end. written has been written.
func (q *logQueue) take(written []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(written) <= logSpare {
		q.spare = written[:0]
	}
	lines := q.waiting
	q.waiting, q.spare = q.spare, nil
	if len(lines) == 0 {
		q.writing = false
		return nil
	}
	if q.lost > 0 {
		q.add(q.notice(q.lost))
		q.lost = 0
	}
	return lines
}

// pieceOf is how much is written at once: as many whole lines as are sure to stay together, or the first one.
func pieceOf(lines []byte) int {
	if len(lines) <= logPiece {
		return len(lines)
	}
	if end := bytes.LastIndexByte(lines[:logPiece], '\n'); end >= 0 {
		return end + 1
	}
	return logPiece
}

// Sync is flush, for zap.
func (q *logQueue) Sync() error {
	q.flush(logPatience)
	return nil
}

// flush waits until all is written that was there at the call, what is said of losses included, and reports whether it is. It gives
// up when nothing has been taken for that long.
func (q *logQueue) flush(patience time.Duration) bool {
	for range 2 { // a loss is said when what was before it is being written
		if !q.await(q.owed(), patience) {
			return false
		}
	}
	return true
}

func (q *logQueue) owed() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.given
}

// await waits until so many bytes were ever written.
func (q *logQueue) await(goal uint64, patience time.Duration) bool {
	moved, since := q.moved.Load(), time.Now()
	for ; moved < goal; time.Sleep(time.Millisecond) {
		now := q.moved.Load()
		switch {
		case now > moved:
			moved, since = now, time.Now()
		case time.Since(since) > patience:
			return false
		}
	}
	return true
}
