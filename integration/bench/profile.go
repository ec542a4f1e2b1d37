package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// profile is where the contender is to leave its profile.
func (t *trial) profile() string {
	return filepath.Join(t.profiles, t.contender.name+"-"+t.name+".pprof")
}

// beginProfile has the next process make a profile, if it is one of jackdaw that can.
func (t *trial) beginProfile() error {
	if t.profiles == "" {
		return nil
	}
	if err := os.MkdirAll(t.profiles, 0o755); err != nil {
		return err
	}
	return os.Setenv("JACKDAW_PROFILE", t.profile())
}

// endProfile waits for the profile.
func (t *trial) endProfile() error {
	if t.profiles == "" || t.contender.peer() {
		return nil
	}
	if err := syscall.Kill(t.server.PID(), syscall.SIGUSR1); err != nil {
		return fmt.Errorf("asking %s for its profile: %w", t.contender.name, err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
	defer cancel()
	return t.server.Until(ctx, often, func() error {
		_, err := os.Stat(t.profile())
		return err
	})
}
