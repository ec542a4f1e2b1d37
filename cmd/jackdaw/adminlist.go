package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"

	"jackdaw/proxy"
)

// listWriter writes a sessionsReport as it becomes known, a line for each session: of many no two are held at a time.
type listWriter struct {
	out     *bufio.Writer
	encoder *json.Encoder // writes there
	some    bool          // were written
}

func newListWriter(to io.Writer) *listWriter {
	out := bufio.NewWriter(to)
	_, _ = out.WriteString(`{"sessions":[`)
	return &listWriter{out: out, encoder: json.NewEncoder(out)}
}

// add writes sessions, until there are no more or nobody listens.
func (l *listWriter) add(all iter.Seq[listedSession]) {
	for one := range all {
		if l.some {
			_ = l.out.WriteByte(',')
		}
		l.some = true
		if l.encoder.Encode(one) != nil {
			return
		}
	}
}

// end says whose sessions are not there.
func (l *listWriter) end(missing []string) {
	_ = l.out.WriteByte(']')
	if len(missing) > 0 {
		_, _ = l.out.WriteString(`,"missing":`)
		_ = l.encoder.Encode(missing)
	}
	_, _ = l.out.WriteString("}\n")
	_ = l.out.Flush()
}

// listed begins an answer to what chooses sessions. It is nil, and refused, where that makes no sense.
func (o *operator) listed(w http.ResponseWriter, r *http.Request) (*listWriter, proxy.Selection) {
	which, err := o.selection(r.URL.Query())
	if err != nil {
		refuse(w, err)
		return nil, which
	}
	w.Header().Set("Content-Type", "application/json")
	return newListWriter(w), which
}

func (o *operator) answerOwnSessions(w http.ResponseWriter, r *http.Request) {
	if list, which := o.listed(w, r); list != nil {
		list.add(o.chosen(which))
		list.end(nil)
	}
}

func (o *operator) answerSessions(w http.ResponseWriter, r *http.Request) {
	list, which := o.listed(w, r)
	if list == nil {
		return
	}
	var missing []string
	for _, g := range o.before() {
		err := g.listTo(r.Context(), list, r.URL.Query())
		if err != nil && !errors.Is(err, errGone) {
			missing = append(missing, err.Error())
		}
	}
	list.add(o.chosen(which))
	list.end(missing)
}

// before are the processes before this one, the oldest first.
func (o *operator) before() []*generation {
	if o.generations == nil {
		return nil
	}
	all := o.generations.all() // each has those after it that it was the heir of
	slices.Reverse(all)
	return all
}

// listTo adds the sessions of another process that are chosen.
func (g *generation) listTo(ctx context.Context, list *listWriter, q url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	response, err := g.send(ctx, questionOf("GET /sessions", q), nil)
	if err != nil {
		return fmt.Errorf("asking process %d: %w", g.pid, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking process %d: it answers %s", g.pid, response.Status)
	}
	list.add(func(yield func(listedSession) bool) { err = readSessions(response.Body, yield) })
	if err != nil {
		return fmt.Errorf("asking process %d: %w", g.pid, err)
	}
	return nil
}

// readSessions reads the sessions of a sessionsReport, one after the other.
func readSessions(in io.Reader, yield func(listedSession) bool) error {
	decoder := json.NewDecoder(in)
	for _, want := range []json.Token{json.Delim('{'), "sessions", json.Delim('[')} {
		switch got, err := decoder.Token(); {
		case err != nil:
			return fmt.Errorf("reading its sessions: %w", err)
		case got != want:
			return fmt.Errorf("reading its sessions: %v stands where %v belongs", got, want)
		}
	}
	for decoder.More() {
		var one listedSession
		if err := decoder.Decode(&one); err != nil {
			return fmt.Errorf("reading its sessions: %w", err)
		}
		if !yield(one) {
			return nil
		}
	}
	if _, err := decoder.Token(); err != nil { // without its end there may be more
		return fmt.Errorf("reading its sessions: %w", err)
	}
	return nil
}
