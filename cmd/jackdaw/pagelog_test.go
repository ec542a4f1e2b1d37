package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// What asks for attention is kept, the latest first, and counted; what does not is left to the log.
func TestRecentLog(t *testing.T) {
	recent := newRecentLog()
	log := zap.New(recent.core())
	log.Info("login", zap.String("user", "alice"))
	log.With(zap.String("backend", "store1")).Warn("store is down", zap.String("user", ""), zap.Error(errors.New("no route")))
	log.Error("odd", zap.String("user", strings.Repeat("ü", mostField)), zap.Int("n", 3))
	lines := recent.list()
	if len(lines) != 2 {
		t.Fatalf("kept %v", lines)
	}
	if l := lines[1]; l.Level != "warn" || l.Message != "store is down" || l.Fields != "backend=store1 error=no route" {
		t.Errorf("kept %+v", l)
	}
	if l := lines[0]; l.Level != "error" || !strings.HasSuffix(l.Fields, "ü… n=3") || len(l.Fields) > mostField+20 {
		t.Errorf("kept %+v", l)
	}
	for i := range mostRecent + 5 {
		log.Warn(fmt.Sprint(i))
	}
	lines = recent.list()
	if len(lines) != mostRecent || lines[0].Message != fmt.Sprint(mostRecent+4) || lines[mostRecent-1].Message != "5" {
		t.Errorf("kept %d lines, from %q to %q", len(lines), lines[0].Message, lines[len(lines)-1].Message)
	}
	if got := recent.counts(); got["warn"] != mostRecent+6 || got["error"] != 1 {
		t.Errorf("counted %v", got)
	}
}
