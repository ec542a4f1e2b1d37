package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
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
	signal.Ignore(syscall.SIGPIPE) // where nobody reads our log any more, clients are served all the same
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
	go thrift.Keep(keeping)
	err = d.live(signals)
	if !d.lines.flush(logPatience) && err != nil {
		return errReported // nobody reads, and who wrote there now would wait for good
	}
	return err
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
	if err := d.build(config, will); err != nil {
		d.lines.flush(logPatience) // before the reason is printed
		return nil, err
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

// build makes the parts, and takes over what is inherited, if anything is.
func (d *daemon) build(config *configs.Config, will *inherit.Will) error {
	if err := d.openDoor(); err != nil {
		return err
	}
	if err := d.apply(config); err != nil || will == nil {
		return err
	}
	return d.inherit(will)
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
				return d.stop(signals)
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

// stops returns contexts that end with the first and with the second signal that asks for the end.
func (d *daemon) stops(signals <-chan os.Signal) (first, second context.Context) {
	first, endFirst := context.WithCancel(context.Background())
	second, endSecond := context.WithCancel(context.Background())
	other := func() { d.log.Warn("neither reloaded nor upgraded: this process is ending") }
	go func() {
		awaitStop(signals, other)
		endFirst()
		awaitStop(signals, other)
		endSecond()
	}()
	return first, second
}

// awaitStop returns the first signal that asks for the end. SIGHUP and SIGUSR2 do not: whatever sends them after a renewal knows
// nothing of what we are about.
func awaitStop(signals <-chan os.Signal, other func()) os.Signal {
	for s := range signals {
		if s != syscall.SIGHUP && s != syscall.SIGUSR2 {
			return s
		}
		other()
	}
	return nil
}

// retire keeps the sessions that there are, after another process has taken over: for half of the time without a word, then they
// are ended one after the other. A signal, or the other process, may ask for the end before.
func (d *daemon) retire(heir *upgraded, signals <-chan os.Signal) error {
	d.withdraw()
	d.log.Info("another process has taken over", zap.Int("process", heir.Process), zap.Int("sessions", heir.Sessions))
	first, hurry := d.stops(signals)
	asked, cancel := context.WithCancel(first)
	defer cancel()
	go func() {
		select {
		case <-d.told:
			cancel()
		case <-asked.Done():
		}
	}()
	var resting sync.WaitGroup
	resting.Go(func() { d.rest(asked) })
	half := d.config.Limits.UpgradeTimeout / 2
	undisturbed, cancelFirst := context.WithTimeout(asked, half)
	defer cancelFirst()
	if d.server.Await(undisturbed) != nil {
		late, cancelLate := context.WithTimeout(asked, half)
		defer cancelLate()
		_ = d.server.End(late, half)
	}
	cancel()
	resting.Wait()
	return d.finish(hurry)
}

// rest ends all looks at stores and directories when no session is left that has yet to log in or to deliver a message: those that are
// relayed need neither.
func (d *daemon) rest(ctx context.Context) {
	const longest = time.Minute
	for pause := time.Second; !d.server.Settled(); pause = min(2*pause, longest) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
	d.router.Retire(nil)
	d.router = nil
	d.log.Debug("no session needs a store or directory any more")
}

// stop ends the process and those that have gone before it. Load balancers hear of that before anybody finds the doors closed.
func (d *daemon) stop(signals <-chan os.Signal) error {
	limits := d.config.Limits
	d.manager.stopping(limits.StopDelay + limits.StopTimeout + askLimit)
	d.admin.orders.close(errEnding)
	d.stopOlder()
	delay, cancel := context.WithTimeout(context.Background(), limits.StopDelay)
	defer cancel()
	hurry, _ := d.stops(signals)
	select {
	case <-delay.Done():
	case <-hurry.Done():
	}
	d.server.Leave()
	return d.finish(hurry)
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

// finish ends the sessions, and then the parts; hurry ends with whoever does not want to wait for that.
func (d *daemon) finish(hurry context.Context) error {
	limit := d.config.Limits.StopTimeout
	ctx, cancel := context.WithTimeout(hurry, limit)
	defer cancel()
	err := d.server.End(ctx, max(0, limit-farewellTime))
	left := d.server.Count()
	d.release()
	if err != nil {
		return fmt.Errorf("%d sessions were cut off: %w", left, err)
	}
	return nil
}
