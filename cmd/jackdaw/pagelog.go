package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

const (
	mostRecent = 200 // lines that are kept
	mostField  = 500 // bytes of a field in them
)

// recentLog keeps the last lines of the log that ask for attention, and counts them, whatever level the log has. Safe for concurrent
// use.
type recentLog struct {
	mu    sync.Mutex
	lines []logLine // a ring, when it is full
	next  int
	count map[string]uint64
}

// logLine is one of them.
type logLine struct {
	Time    time.Time
	Level   string
	Message string
	Fields  string // "name=value", in one line
}

func newRecentLog() *recentLog {
	return &recentLog{count: map[string]uint64{"warn": 0, "error": 0}}
}

// core is for zap.
func (r *recentLog) core() zapcore.Core { return &recentCore{LevelEnabler: zapcore.WarnLevel, log: r} }

// list returns the lines, the latest first.
func (r *recentLog) list() []logLine {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := slices.Concat(r.lines[r.next:], r.lines[:r.next])
	slices.Reverse(lines)
	return lines
}

// counts says how many there were of each level.
func (r *recentLog) counts() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.count)
}

func (r *recentLog) add(line logLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[line.Level]++
	if len(r.lines) < mostRecent {
		r.lines = append(r.lines, line)
		return
	}
	r.lines[r.next] = line
	r.next = (r.next + 1) % mostRecent
}

// recentCore writes to a recentLog.
type recentCore struct {
	zapcore.LevelEnabler
	log  *recentLog
	with []zapcore.Field
}

// With is zapcore.Core's.
func (c *recentCore) With(fields []zapcore.Field) zapcore.Core {
	return &recentCore{c.LevelEnabler, c.log, slices.Concat(c.with, fields)}
}

// Check is zapcore.Core's.
func (c *recentCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write is zapcore.Core's.
func (c *recentCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := "warn"
	if entry.Level > zapcore.WarnLevel {
		level = "error"
	}
	c.log.add(logLine{entry.Time, level, entry.Message, describeFields(slices.Concat(c.with, fields))})
	return nil
}

// Sync is zapcore.Core's.
func (c *recentCore) Sync() error { return nil }

// describeFields writes fields in their order; those that are empty are left out.
func describeFields(fields []zapcore.Field) string {
	var parts []string
	for _, f := range fields {
		encoder := zapcore.NewMapObjectEncoder()
		f.AddTo(encoder)
		text := fmt.Sprint(encoder.Fields[f.Key])
		if text == "" || encoder.Fields[f.Key] == nil {
			continue
		}
		if len(text) > mostField {
			text = strings.ToValidUTF8(text[:mostField], "") + "…"
		}
		parts = append(parts, f.Key+"="+text)
	}
	return strings.Join(parts, " ")
}
