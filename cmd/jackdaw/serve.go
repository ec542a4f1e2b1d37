package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/configs"
)

func serveCommand() *cobra.Command {
	var file string
	cmd := command("serve -c FILE", "Run the proxy", `Run the proxy, as the configuration file says.

SIGHUP reads the file again: routes, backends, listeners, certificates and limits are replaced, and no session is
touched. A bad file changes nothing and is reported in the log.
SIGTERM and SIGINT stop listening, say goodbye to the sessions and end; a second one ends at once.`,
		func(*cobra.Command) error { return serve(file) })
	configFlag(cmd, &file)
	return cmd
}

// shutdownLimit is how long the end may take. Sessions are asked to end before that.
const shutdownLimit = 15 * time.Second

func serve(file string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	config, err := configs.Load(file)
	if err != nil {
		return err
	}
	d := newDaemon(config)
	if err := d.apply(config); err != nil {
		return err
	}
	for _, address := range d.server.Addresses() {
		d.log.Info("listening", zap.String("service", string(address.Service)), zap.Stringer("address", address.Address))
	}
	why := untilStop(signals, func() { d.reload(file) })
	d.log.Info("stopping", zap.Stringer("signal", why))
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	go func() {
		untilStop(signals, func() { d.log.Warn("not reloaded: stopping") })
		cancel()
	}()
	return d.close(ctx)
}

// untilStop returns the first signal that asks for the end. SIGHUP does not: whatever sends it after a renewal knows nothing
// of what we are about.
func untilStop(signals <-chan os.Signal, hangup func()) os.Signal {
	for s := range signals {
		if s != syscall.SIGHUP {
			return s
		}
		hangup()
	}
	return nil
}
