package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// profile begins to take a CPU profile, where profiles are wanted and the contender is jackdaw: its admin socket has them. wait
// returns when it is in its file.
func (t *trial) profile(ctx context.Context, length time.Duration) (wait func() error) {
	taking := new(errgroup.Group)
	if t.profiles != "" && !t.contender.peer() {
		taking.Go(func() error {
			if err := t.takeProfile(ctx, length); err != nil {
				return fmt.Errorf("taking a profile of %s: %w", t.contender.name, err)
			}
			return nil
		})
	}
	return taking.Wait
}

func (t *trial) takeProfile(ctx context.Context, length time.Duration) error {
	url := fmt.Sprintf("http://jackdaw/debug/pprof/profile?seconds=%.0f", math.Ceil(length.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", t.file("admin.sock"))
	}}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.200s", response.Status, profile)
	}
	if err := os.MkdirAll(t.profiles, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.profiles, t.contender.name+"-"+t.name+".pprof"), profile, 0o644)
}
