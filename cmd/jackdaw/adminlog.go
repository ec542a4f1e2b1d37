package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logTime is how long another level holds if nothing else is said.
const logTime = 10 * time.Minute

// logLevel is what is logged: what the configuration says, or for a while what somebody asks for. Safe for concurrent use.
type logLevel struct {
	zap.AtomicLevel // that holds

	mu    sync.Mutex
	usual zapcore.Level
	until time.Time   // the usual one holds again; the zero time if it holds now
	timer *time.Timer // nil if it holds now
}

func newLogLevel() *logLevel { return &logLevel{AtomicLevel: zap.NewAtomicLevel()} }

// configure takes the level that the configuration says, which was checked. What somebody has asked for holds as long as it was to.
func (l *logLevel) configure(name string) {
	parsed, err := zapcore.ParseLevel(name)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usual = parsed
	if l.timer == nil {
		l.SetLevel(parsed)
	}
}

// change has another level hold for some time.
func (l *logLevel) change(level zapcore.Level, limit time.Duration) (until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.SetLevel(level)
	l.until = time.Now().Add(limit)
	var timer *time.Timer
	timer = time.AfterFunc(limit, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.timer == timer { // and nobody has asked for another one since
			l.restore()
		}
	})
	l.timer = timer
	return l.until
}

// restore goes back to the usual level. l.mu is held.
func (l *logLevel) restore() {
	l.timer, l.until = nil, time.Time{}
	l.SetLevel(l.usual)
}

// inherit goes on with what somebody has asked for at another process.
func (l *logLevel) inherit(left logReport) {
	level, err := zapcore.ParseLevel(left.Level)
	if rest := time.Until(left.Until); err == nil && rest > 0 {
		l.change(level, rest)
	}
}

// close stops waiting.
func (l *logLevel) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.restore()
	}
}

// logReport is the answer to POST /log.
type logReport struct {
	Level   string    `json:"level"`
	Until   time.Time `json:"until,omitzero"` // what the configuration says holds again
	Missing []string  `json:"missing,omitempty"`
}

func (l *logLevel) report() logReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	return logReport{Level: l.Level().String(), Until: l.until}
}

func (o *operator) setOwnLevel(_ context.Context, q url.Values) (any, error) {
	if err := only(q, "level", "for"); err != nil {
		return nil, err
	}
	level, err := zapcore.ParseLevel(q.Get("level"))
	if err != nil || q.Get("level") == "" || level > zapcore.ErrorLevel {
		return nil, badQuestion{errors.New("the level is debug, info, warn or error")}
	}
	limit, err := duration(q, "for", logTime)
	if err != nil {
		return nil, err
	}
	o.level.change(level, limit)
	return o.level.report(), nil
}

func (o *operator) setLevel(ctx context.Context, q url.Values) (any, error) {
	var answer any
	err := o.changes.pass(func() (err error) { answer, err = o.setOwnLevel(ctx, q); return err })
	if err != nil {
		return nil, err
	}
	report := answer.(logReport)
	report.Missing = o.older(ctx, func(ctx context.Context, g *generation) error {
		return g.ask(ctx, questionOf("POST /log", q), nil, nil)
	})
	o.log.Info(fmt.Sprintf("logging at level %s for a while", report.Level), zap.Time("until", report.Until))
	return report, nil
}
