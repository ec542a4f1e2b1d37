package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
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
	closed chan struct{} // closed when nothing is done any more
	close  func()
}

func newOrderBook() *orderBook {
	b := &orderBook{placed: make(chan order), closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

// errNotServing answers orders that come too late.
var errNotServing = errors.New("this process is ending, or another one has taken over")

// orderLimit bounds how long somebody waits for an order to be carried out.
const orderLimit = upgradeLimit + time.Minute

// takeOrder answers when the order has been carried out: 200, or 409 with the reason why nothing has changed.
func (a *admin) takeOrder(what orderKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(orderLimit))
		o := order{what, make(chan outcome, 1)}
		result := outcome{err: errNotServing}
		select {
		case a.orders.placed <- o:
			result = <-o.done
		case <-a.orders.closed:
		case <-r.Context().Done():
		}
		if result.err != nil {
			http.Error(w, result.err.Error(), http.StatusConflict)
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

func (a *admin) ready() bool {
	select {
	case <-a.orders.closed:
		return false
	default:
		return true
	}
}
