package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/proxy"
)

// operator does what administrators want of sessions, users and stores: in this process, and in those that have gone before it and
// have sessions still. Safe for concurrent use.
type operator struct {
	log         *zap.Logger
	server      *proxy.Server
	router      func() *backends.Router
	scene       func() *scene // what is served
	generations *generations  // nil where nobody takes over
	level       *logLevel
	emptying    emptying
	changes     gate
	telling     sync.Mutex      // held while others are told whom to keep out
	ending      <-chan struct{} // closed when nothing is done any more
}

// handle adds what is asked on the admin socket, as docs/admin.md describes it.
func (o *operator) handle(mux *http.ServeMux) {
	for question, answer := range o.answers() {
		mux.HandleFunc(question, answer)
	}
}

// answers are those of all processes together, by their questions.
func (o *operator) answers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /status":   o.answering(o.status),
		"GET /sessions": o.answerSessions,
		"POST /kick":    o.answering(o.kick),
		"GET /where":    o.answering(o.where),
		"GET /explain":  o.answering(o.explain),
		"POST /move":    o.answering(o.move),
		"GET /blocked":  o.answering(o.listBlocked),
		"POST /block":   o.answering(o.block),
		"POST /unblock": o.answering(o.unblock),
		"POST /drain":   o.answering(o.drain),
		"POST /undrain": o.answering(o.undrain),
		"GET /trace":    o.answerTrace,
		"POST /log":     o.answering(o.setLevel),
	}
}

// handleOther adds what another generation asks of this process alone.
func (o *operator) handleOther(mux *http.ServeMux) {
	mux.HandleFunc("GET /sessions", o.answerOwnSessions)
	mux.HandleFunc("GET /overview", o.answering(o.ownOverview))
	mux.HandleFunc("POST /kick", o.answering(o.kickOwn))
	mux.HandleFunc("GET /trace", o.answerOwnTrace)
	mux.HandleFunc("POST /leave", o.answering(o.leaveOwn))
	mux.HandleFunc("POST /log", o.answering(o.setOwnLevel))
	mux.HandleFunc("POST /kept-out", answerOther(o.learnKeptOut))
}

// badQuestion is an error of whoever asks.
type badQuestion struct{ error }

// answering answers in JSON, or refuses.
func (o *operator) answering(do func(ctx context.Context, q url.Values) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, err := do(r.Context(), r.URL.Query())
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // who has gone does not want it
	}
}

// refuse answers with an error: 400 to a question that makes no sense, 421 to what another process has to be asked (RFC 9110 section
// 15.5.20), and 409 with the reason to what cannot be done.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusConflict
	if errors.Is(err, errNotServing) {
		status = http.StatusMisdirectedRequest
	} else if _, ok := errors.AsType[badQuestion](err); ok {
		status = http.StatusBadRequest
	}
	http.Error(w, err.Error(), status)
}

// only refuses a question with words that it does not know.
func only(q url.Values, known ...string) error {
	for name, values := range q {
		if !slices.Contains(known, name) {
			return badQuestion{fmt.Errorf("no condition %q; there are %s", name, strings.Join(known, ", "))}
		}
		if len(values) > 1 {
			return badQuestion{fmt.Errorf("%s is given %d times", name, len(values))}
		}
	}
	return nil
}

// duration reads a time that is given, or else returns usual.
func duration(q url.Values, name string, usual time.Duration) (time.Duration, error) {
	if !q.Has(name) {
		return usual, nil
	}
	d, err := parseTime(q.Get(name))
	if err != nil {
		return 0, badQuestion{fmt.Errorf("reading %q: %w", name, err)}
	}
	return d, nil
}

// user makes the canonical user of a name that is given.
func (o *operator) user(q url.Values) (backends.User, error) {
	user, err := o.router().Named(q.Get("user"))
	if err != nil {
		return backends.User{}, badQuestion{fmt.Errorf("user %q: %w", q.Get("user"), err)}
	}
	return user, nil
}

// parseNetwork reads a network or an address, as it counts for clients.
func parseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		addr, noAddr := netip.ParseAddr(text)
		if noAddr != nil {
			return netip.Prefix{}, fmt.Errorf("%q is no network and no address", text)
		}
		network = netip.PrefixFrom(addr.Unmap().WithZone(""), addr.Unmap().BitLen())
	}
	if addr := network.Addr(); addr.Is4In6() {
		if network.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q is more than a network of IPv4", text)
		}
		network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
	}
	return network.Masked(), nil
}

// older asks all that have gone before, at once, and says whom it has not reached. Who has ended in the meantime has no sessions.
func (o *operator) older(ctx context.Context, ask func(context.Context, *generation) error) (missing []string) {
	if o.generations == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err := o.generations.Each(func(g *generation) error { return ask(ctx, g) })
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range all.Unwrap() {
			missing = append(missing, one.Error())
		}
	}
	return missing
}

// questionOf is a question with its details, for another process.
func questionOf(question string, q url.Values) string { return question + "?" + q.Encode() }

// warnMissing says which processes have not answered. What they would have said is not there.
func warnMissing(out io.Writer, missing []string) {
	for _, one := range missing {
		fmt.Fprintf(out, "jackdaw: a former process is left out: %s\n", one)
	}
}

// ownProcess is this process's id, as it is listed.
var ownProcess = os.Getpid()

// close ends what goes on.
func (o *operator) close() {
	o.emptying.close()
	o.level.close()
}
