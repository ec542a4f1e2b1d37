package main

import (
	"os"
	"syscall"
	"testing"

	"go.uber.org/zap/zapcore"

	"jackdaw/configs"
	"jackdaw/internal/inherit"
)

// What asks for a reload or an upgrade never ends anything.
func TestAwaitStop(t *testing.T) {
	signals := make(chan os.Signal, 4)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGHUP} {
		signals <- s
	}
	others := 0
	if got := awaitStop(signals, func() { others++ }); got != syscall.SIGTERM || others != 2 {
		t.Errorf("%v ends it after %d other signals, want SIGTERM after 2", got, others)
	}
}

// The level holds for the first line, too.
func TestFirstLevel(t *testing.T) {
	d := newDaemon(&configs.Config{Log: configs.Log{Level: "error"}}, inherit.NewSockets())
	if got := d.level.Level(); got != zapcore.ErrorLevel {
		t.Errorf("the level is %v, want error", got)
	}
}
