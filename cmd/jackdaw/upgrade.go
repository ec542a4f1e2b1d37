package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/internal/inherit"
	"jackdaw/proxy"
	"jackdaw/tlsstore"
)

func upgradeCommand() *cobra.Command {
	var socket string
	cmd := command("upgrade", "Let a new process take over", `Have the running daemon start the program that is found at its path by now, with the
same arguments, and let it take over all that the daemon listens on. No client is refused: the old process keeps its sessions
until they end, or until [limits] upgrade_timeout has passed. If the new process cannot begin, the old one goes on, and
the exit status is 1.`,
		func(cmd *cobra.Command) error {
			var done upgraded
			if err := orderDaemon(cmd, socket, orderUpgrade, &done); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "process %d has taken over from process %d, which has %d sessions left\n",
				done.Process, done.Former, done.Sessions)
			return nil
		})
	socketFlag(cmd, &socket)
	return cmd
}

func reloadCommand() *cobra.Command {
	var socket string
	cmd := command("reload", "Have the configuration read again", `Have the running daemon read its configuration file again, and wait until that is done.
If anything is wrong with the file, nothing changes, all of it is printed, and the exit status is 1.`,
		func(cmd *cobra.Command) error { return orderDaemon(cmd, socket, orderReload, new(struct{})) })
	socketFlag(cmd, &socket)
	return cmd
}

// orderDaemon has the daemon do something, and fills in what it answers. Why nothing has changed is printed as it is: errors of
// a configuration begin with their file and line.
func orderDaemon(cmd *cobra.Command, socket string, what orderKind, answer any) error {
	text, err := askDaemonTo(cmd.Context(), socket, "/"+string(what))
	if refused, ok := errors.AsType[*refusal](err); ok {
		fmt.Fprintln(cmd.ErrOrStderr(), refused.reason)
		return errReported
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// upgraded is the answer to an order to upgrade.
type upgraded struct {
	Process  int `json:"process"`  // that has taken over
	Former   int `json:"former"`   // which answers
	Sessions int `json:"sessions"` // that it keeps
}

// upgradeLimit is how long a new process may take to become ready.
const upgradeLimit = time.Minute

// acquaintLimit is how long the new process waits for stores that do not answer. They would not answer the old one either.
const acquaintLimit = 5 * time.Second

var errNotReady = errors.New("it was not ready in time")

// program is what an upgrade starts, found once: later the working directory or PATH could be others. It is the path by which we
// were called, not the file that we are: an upgrade may have put another one there, or have a symlink lead elsewhere.
var program, errProgram = findProgram(os.Args[0])

func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// upgrade lets a new process take over. On an error nothing has changed.
func (d *daemon) upgrade() (*upgraded, error) {
	d.manager.reloading("Starting a new process")
	heir, err := d.bequeath()
	if err != nil {
		d.log.Error("upgrade failed, this process goes on", zap.String("program", program), zap.Error(err))
		d.manager.serving("Serving; an upgrade has failed: " + err.Error())
		return nil, err
	}
	return &upgraded{Process: heir.PID, Former: os.Getpid(), Sessions: d.server.Count()}, nil
}

// bequeath starts the new process, and returns when it serves.
func (d *daemon) bequeath() (*inherit.Heir, error) {
	switch {
	case errProgram != nil:
		return nil, errProgram
	case os.Getpid() == 1:
		return nil, errors.New("the first process of a container takes all others with it when it ends: start a new container instead")
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), upgradeLimit, errNotReady)
	defer cancel()
	heir, err := inherit.Start(ctx, program, os.Args, d.sockets, d.generations.processes())
	if err != nil {
		return nil, err
	}
	if err := heir.Await(ctx); err != nil {
		return nil, err
	}
	d.lines.flush(logPatience)
	d.manager.follow(heir.PID) // before the heir says anything to the manager, who hears no other process
	ctx, cancelGive := context.WithTimeoutCause(context.Background(), askLimit, errNotReady)
	defer cancelGive()
	left := d.estate()
	if err := heir.Give(ctx, left); err != nil {
		d.manager.follow(os.Getpid())
		d.takeBack(left)
		return nil, err
	}
	d.sockets.Pass()
	d.server.Leave()
	return heir, nil
}

// estate is what the next process must know to the last moment. It travels between two processes, and never lies in a file.
type estate struct {
	Tickets []tlsstore.OwnKey
	Emptied []emptied
	Seats   []backends.Seat
	Drained []string
	Logins  []loginMinute // of the last hour
	Blocked []proxy.Block
	Log     logReport
	Counted ledger
}

// estate has nothing of it changed any more, unless it is taken back.
func (d *daemon) estate() estate {
	d.operator.changes.shut()
	return estate{
		Tickets: d.tickets.OwnKeys(),
		Emptied: d.operator.emptying.close(),
		Seats:   d.placements.handOver(),
		Drained: d.router.Drained(),
		Logins:  d.web.history.list(),
		Blocked: d.server.HandOverBlocks(),
		Log:     d.level.report(),
		Counted: d.metrics.handOver(),
	}
}

// takeBack goes on as if nothing had been handed over.
func (d *daemon) takeBack(left estate) {
	d.placements.takeBack()
	d.metrics.takeBack()
	d.operator.resume(left.Emptied)
	d.generations.succeed(nil)
	d.generations.announce()
	d.operator.changes.open()
}

// hearLimit is how long the new process waits to be told what sessions of the older ones hold.
const hearLimit = 3 * time.Second

// inherit begins with what another process has left.
func (d *daemon) inherit(w *inherit.Will) error {
	d.metrics.retire() // until we know what has been counted
	d.generations.adopt(w.Processes)
	ctx, cancel := context.WithTimeout(context.Background(), acquaintLimit)
	defer cancel()
	d.router.Acquaint(ctx)
	hearing, cancelHearing := context.WithTimeout(context.Background(), hearLimit)
	defer cancelHearing()
	d.generations.settle(hearing)
	var left estate
	if err := w.Accept(&left); err != nil {
		return err
	}
	if err := d.metrics.inherit(left.Counted); err != nil {
		return err
	}
	d.tickets.Inherit(left.Tickets)
	d.router.InheritDrained(left.Drained)
	d.web.history.inherit(left.Logins)
	d.server.InheritBlocks(left.Blocked)
	d.level.inherit(left.Log)
	d.router.Inherit(left.Seats, d.placements.evict)
	for _, p := range w.Processes {
		if !d.generations.has(p.PID) { // it has ended after we met it, and may have left seats to us all the same
			d.router.Vacate(p.PID, "", "")
		}
	}
	d.operator.resume(left.Emptied)
	d.generations.announce()
	return w.Serve()
}

// openDoor lets other generations ask this one.
func (d *daemon) openDoor() (err error) {
	mux := http.NewServeMux()
	stop := sync.OnceFunc(func() { close(d.told) })
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { stop() })
	d.placements = newPlacements(d.log, d.placer.Load)
	d.placements.handle(mux)
	d.operator.handleOther(mux)
	mux.HandleFunc("GET /flow", d.metrics.answerFlow)
	d.generations, err = newGenerations(d.log, mux, d.kin())
	if err != nil {
		return err
	}
	d.placements.generations, d.operator.generations = d.generations, d.generations
	d.generations.tasks.Go(d.placements.tell)
	return nil
}
