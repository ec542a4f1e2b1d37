package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/proxy"
)

// traceTime is how long is traced if nothing else is said.
const traceTime = 10 * time.Minute

// tracing reads what is to be traced, and for how long.
func (o *operator) tracing(q url.Values) (which proxy.Tracing, limit time.Duration, err error) {
	if err := only(q, "user", "network", "for", "relay"); err != nil {
		return which, 0, err
	}
	one, _, err := o.blocked(q)
	if err != nil {
		return which, 0, err
	}
	which = proxy.Tracing{User: one.User, Client: one.Network}
	if q.Has("relay") {
		if which.Relay, err = strconv.ParseBool(q.Get("relay")); err != nil {
			return which, 0, badQuestion{err}
		}
	}
	limit, err = duration(q, "for", traceTime)
	return which, limit, err
}

// traceLines are written by several who trace.
type traceLines struct {
	mu  sync.Mutex
	out io.Writer
	now *http.ResponseController
}

func (l *traceLines) write(line string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := io.WriteString(l.out, line); err != nil {
		return err
	}
	return l.now.Flush()
}

// answerTrace answers with what is said, as it is said, until the time has passed or the asker has gone.
func (o *operator) answerTrace(w http.ResponseWriter, r *http.Request) {
	o.stream(w, r, o.ending, func(ctx context.Context, lines *traceLines) {
		o.log.Info("tracing", zap.String("user", r.URL.Query().Get("user")), zap.String("network", r.URL.Query().Get("network")))
		_ = o.older(ctx, func(_ context.Context, g *generation) error { return g.trace(ctx, r.URL.Query(), lines.write) })
	})
}

func (o *operator) answerOwnTrace(w http.ResponseWriter, r *http.Request) {
	// The newest process asks, and has said so in its log. This one takes no orders any more, and goes on as long as its sessions do.
	o.stream(w, r, o.generations.ctx.Done(), func(context.Context, *traceLines) {})
}

// stream writes what is said in this process until it is ending, and what others add.
func (o *operator) stream(w http.ResponseWriter, r *http.Request, ending <-chan struct{}, others func(context.Context, *traceLines)) {
	which, limit, err := o.tracing(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines := &traceLines{out: w, now: http.NewResponseController(w)}
	_ = lines.now.SetWriteDeadline(time.Now().Add(limit + adminReadTime))
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	go func() {
		select {
		case <-ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = lines.now.Flush() // whoever asks knows now that the trace has begun
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { others(ctx, lines) })
	_ = o.server.Trace(ctx, which, lines.write) // who has gone wants no more
	cancel()
}

// trace writes down what is said in another process.
func (g *generation) trace(ctx context.Context, q url.Values, write func(line string) error) error {
	response, err := g.send(ctx, questionOf("GET /trace", q), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		if err == nil {
			err = write(line)
		}
		if err != nil {
			return err
		}
	}
}
