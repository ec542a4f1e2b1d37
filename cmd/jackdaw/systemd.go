package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// manager is the service manager that has started us, if one wants to hear how things stand (sd_notify(3)).
type manager struct{ log *zap.Logger }

func (m manager) tell(states ...string) {
	if _, err := systemd.SdNotify(false, strings.Join(states, "\n")); err != nil {
		m.log.Warn("the service manager could not be told", zap.Strings("states", states), zap.Error(err))
	}
}

// serving ends what starting, a reload or an upgrade began.
func (m manager) serving(status string) {
	m.tell(systemd.SdNotifyReady, "STATUS="+strings.ReplaceAll(status, "\n", "; ")) // a state is one line
}

// reloading says that a reload or an upgrade has begun. Whoever waits for it waits until serving.
func (m manager) reloading(status string) {
	m.tell(systemd.SdNotifyReloading, strings.TrimSpace(systemd.SdNotifyMonotonicUsec()), "STATUS="+status)
}

// stopping says that the end has begun, and how long it may take.
func (m manager) stopping(longest time.Duration) {
	m.tell(systemd.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", longest.Microseconds()), "STATUS=Ending the sessions")
}

// follow names the process to watch from now on.
func (m manager) follow(pid int) { m.tell(fmt.Sprintf("MAINPID=%d", pid)) }

// beat tells the manager twice within its interval that we are alive, as long as we are, until ctx ends. Without a word from
// us it restarts us.
func (m manager) beat(ctx context.Context, alive func()) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("no watchdog", zap.Error(err))
	}
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		alive()
		m.tell(systemd.SdNotifyWatchdog)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
