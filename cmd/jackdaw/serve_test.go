package main

import (
	"os"
	"syscall"
	"testing"

	"go.uber.org/zap/zapcore"

	"jackdaw/configs"
)

// A renewal's hook may send SIGHUP at any time: it reloads, and never ends anything.
func TestUntilStop(t *testing.T) {
	signals := make(chan os.Signal, 4)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGHUP} {
		signals <- s
	}
	hangups := 0
	if got := untilStop(signals, func() { hangups++ }); got != syscall.SIGTERM || hangups != 2 {
		t.Errorf("%v ends it after %d reloads, want SIGTERM after 2", got, hangups)
	}
}

// The level holds for the first line, too.
func TestFirstLevel(t *testing.T) {
	d := newDaemon(&configs.Config{Log: configs.Log{Level: "error"}})
	if got := d.level.Level(); got != zapcore.ErrorLevel {
		t.Errorf("the level is %v, want error", got)
	}
}
