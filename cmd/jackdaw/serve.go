package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/inherit"
	"jackdaw/internal/thrift"
)

func serveCommand() *cobra.Command {
	var file string
	cmd := command("serve -c FILE", "Run the proxy", `Run the proxy, as the configuration file says.

SIGHUP reads the file again: routes, backends, listeners, certificates and limits are replaced, and no session is
touched. A bad file changes nothing and is reported in the log.
SIGUSR2 starts the program anew, from the same path, and lets it take over; this process keeps its sessions. If the new one
cannot begin, this one goes on.
SIGTERM and SIGINT stop listening, say goodbye to the sessions and end; a second one ends at once.`,
		func(*cobra.Command) error { return serve(file) })
	configFlag(cmd, &file)
	return cmd
}

func serve(file string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, os.Interrupt)
	will, err := inherit.Receive()
	if err != nil {
		return err
	}
	d, err := begin(file, will)
	if err != nil {
		if will != nil {
			return errors.Join(err, will.Refuse(err))
		}
		return err
	}
	keeping, done := context.WithCancel(context.Background())
	defer done()
	go thrift.Keep(keeping, d.server.Accepted)
	return d.live(signals)
}

// begin builds a daemon that serves, on what it inherits if it does.
func begin(file string, will *inherit.Will) (*daemon, error) {
	config, err := configs.Load(file)
	if err != nil {
		return nil, err
	}
	sockets, err := inheritedSockets(will)
	if err != nil {
		return nil, err
	}
	d := newDaemon(config, sockets)
	d.file = file
	if err := d.openDoor(); err != nil {
		return nil, err
	}
	if err := d.apply(config); err != nil {
		return nil, err
	}
	if will != nil {
		if err := d.inherit(will); err != nil {
			return nil, err
		}
	}
	for _, address := range d.server.Addresses() {
		d.log.Info("listening", zap.String("service", string(address.Service)), zap.Stringer("address", address.Address))
	}
	for _, address := range sockets.Idle() {
		d.log.Warn("systemd has given a socket that is no listener of the configuration: its clients wait in vain",
			zap.Stringer("address", address))
	}
	return d, nil
}

// inheritedSockets are those of the process before us, or of systemd.
func inheritedSockets(will *inherit.Will) (*inherit.Sockets, error) {
	if will != nil {
		return will.Sockets, nil
	}
	return inherit.Activated(activation.Files(true))
}

// live serves until the end of the process, or of its last session when another process has taken over.
func (d *daemon) live(signals <-chan os.Signal) error {
	d.manager.serving("Serving")
	beating, cancel := context.WithCancel(context.Background())
	defer cancel()
	go d.manager.beat(beating, d.check)
	for {
		var heir *upgraded
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				_ = d.reload() // the log has the reason
			case syscall.SIGUSR2:
				heir, _ = d.upgrade()
			default:
				d.log.Info("stopping", zap.Stringer("signal", s))
				return d.stop(d.awaitEnd(signals))
			}
		case o := <-d.admin.orders.placed:
			heir = d.carryOut(o)
		}
		if heir != nil {
			cancel()
			return d.retire(heir, signals)
		}
	}
}

// carryOut does what somebody has ordered on the admin socket. heir has taken over then, if it is not nil.
func (d *daemon) carryOut(o order) (heir *upgraded) {
	result := outcome{answer: struct{}{}}
	switch o.what {
	case orderReload:
		result.err = d.reload()
	case orderUpgrade:
		heir, result.err = d.upgrade()
		result.answer = heir
	}
	o.done <- result
	return heir
}

// ends are what may end an end that takes its time.
type ends struct {
	orderly context.Context // somebody wants the process to stop
	atOnce  context.Context // somebody does not want to wait for that
}

// awaitEnd hears from now on who wants the end: signals, and the process that has taken over.
func (d *daemon) awaitEnd(signals <-chan os.Signal) ends {
	orderly, first := context.WithCancel(context.Background())
	atOnce, second := context.WithCancel(context.Background())
	hangup := func() { d.log.Warn("neither reloaded nor upgraded: this process is ending") }
	go func() {
		untilStop(signals, hangup)
		first()
		untilStop(signals, hangup)
		second()
	}()
	go func() {
		<-d.told
		first()
	}()
	return ends{orderly, atOnce}
}

// retire keeps the sessions that there are, after another process has taken over: for half of the time without a word, then they
// are ended one after the other.
func (d *daemon) retire(heir *upgraded, signals <-chan os.Signal) error {
	end := d.awaitEnd(signals)
	d.withdraw()
	d.log.Info("another process has taken over", zap.Int("process", heir.Process), zap.Int("sessions", heir.Sessions))
	half := d.config.Limits.UpgradeTimeout / 2
	undisturbed, cancel := context.WithTimeout(end.orderly, half)
	defer cancel()
	if d.server.Await(undisturbed) != nil {
		late, cancel := context.WithTimeout(end.orderly, half)
		defer cancel()
		_ = d.server.End(late, half)
	}
	return d.finish(end)
}

// stop ends the process and those that have gone before it. Load balancers hear of that before anybody finds the doors closed.
func (d *daemon) stop(end ends) error {
	limits := d.config.Limits
	d.manager.stopping(limits.StopDelay + limits.StopTimeout + askLimit)
	d.admin.orders.close()
	d.stopOlder()
	select {
	case <-time.After(limits.StopDelay):
	case <-end.atOnce.Done():
	}
	d.server.Leave()
	return d.finish(end)
}

// stopOlder has the processes stop that still have sessions of a former time.
func (d *daemon) stopOlder() {
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	err := d.generations.Each(func(g *generation) error { return g.ask(ctx, "POST /stop", nil, nil) })
	if err != nil {
		d.log.Warn("former processes may not stop", zap.Error(err))
	}
}

// farewellTime is what the last session may need to end after its turn has come.
const farewellTime = 12 * time.Second

// finish ends the sessions, and then the parts.
func (d *daemon) finish(end ends) error {
	limit := d.config.Limits.StopTimeout
	ctx, cancel := context.WithTimeout(end.atOnce, limit)
	defer cancel()
	err := d.server.End(ctx, max(0, limit-farewellTime))
	d.release()
	if err != nil {
		return fmt.Errorf("%d sessions were cut off: %w", d.server.Sessions(), err)
	}
	return nil
}

// untilStop returns the first signal that asks for the end. SIGHUP and SIGUSR2 do not: whatever sends them after a renewal knows
// nothing of what we are about.
func untilStop(signals <-chan os.Signal, other func()) os.Signal {
	for s := range signals {
		if s != syscall.SIGHUP && s != syscall.SIGUSR2 {
			return s
		}
		other()
	}
	return nil
}
