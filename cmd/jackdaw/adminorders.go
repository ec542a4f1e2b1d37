package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// order is what somebody wants the daemon to do that only its own goroutine can do, one thing after the other.
type order struct {
	what orderKind
	done chan outcome // takes one, at once
}

type orderKind string

const (
	orderReload  orderKind = "reload"
	orderUpgrade orderKind = "upgrade"
)

// outcome is what has become of an order.
type outcome struct {
	answer any // for the answer's JSON
	err    error
}

// orderBook is where orders wait for the daemon. Safe for concurrent use.
type orderBook struct {
	placed chan order
	open   context.Context // ends when nothing is done any more, for a reason
	close  context.CancelCauseFunc
}

func newOrderBook() *orderBook {
	b := &orderBook{placed: make(chan order)}
	b.open, b.close = context.WithCancelCause(context.Background())
	return b
}

// Why orders come too late. After errNotServing they are for the process that has taken over, or will in a moment.
var (
	errNotServing = errors.New("another process is taking over: ask again in a moment")
	errEnding     = errors.New("this process is ending")
)

// orderLimit bounds how long somebody waits for an order to be carried out.
const orderLimit = upgradeLimit + time.Minute

// takeOrder answers when the order has been carried out: 200, or with the reason why nothing has changed.
func (a *admin) takeOrder(what orderKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(orderLimit))
		o := order{what, make(chan outcome, 1)}
		var result outcome
		select {
		case a.orders.placed <- o:
			result = <-o.done
		case <-a.orders.open.Done():
			result.err = context.Cause(a.orders.open)
		case <-r.Context().Done():
			result.err = r.Context().Err() // which nobody hears
		}
		if result.err != nil {
			refuse(w, result.err)
			return
		}
		a.answer(w, r, func(w io.Writer) error { return json.NewEncoder(w).Encode(result.answer) })
	}
}

// answerReady tells load balancers whether to send clients here: 200 while we listen and do not mean to stop, 503 otherwise.
func (a *admin) answerReady(w http.ResponseWriter, r *http.Request) {
	if !a.ready() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	a.answer(w, r, func(w io.Writer) error { _, err := io.WriteString(w, "{\"ready\":true}\n"); return err })
}

func (a *admin) ready() bool { return a.orders.open.Err() == nil }
