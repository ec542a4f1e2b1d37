package main

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/proxy"
	"jackdaw/tlsstore"
	"jackdaw/tlsstore/orders"
)

//go:embed page
var pageFiles embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"span": writeSpan, "ago": time.Since, "bytes": writeBytes,
	"millis": func(seconds float64) string { return fmt.Sprintf("%.1f ms", seconds*1000) },
}).ParseFS(pageFiles, "page/page.html"))

// What of a long list the page shows.
const (
	certificatesShown = 50
	queryMost         = 200 // bytes of a search
)

// statusPage is the status page: everything that there is to see, on one page, for those who may see it. Safe for concurrent use.
type statusPage struct {
	*daemon
	history *loginHistory
}

// handle adds the page and what it is made of.
func (p *statusPage) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", p.answer)
	for _, file := range []string{"page.css", "page.js", "page.svg"} {
		mux.HandleFunc("GET /"+file, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, pageFiles, "page/"+file) })
	}
}

func (p *statusPage) answer(w http.ResponseWriter, r *http.Request) {
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, p.data(r)); err != nil {
		p.log.Error("status page cannot be written", zap.Error(err))
		http.Error(w, "the page cannot be written; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = text.WriteTo(w)
}

// pageData is what the page shows.
type pageData struct {
	Host, Version string
	Now           time.Time
	Up            time.Duration
	Processes     int
	Ready         bool
	History       plot
	Backends      []pageBackend
	Down          int // backends with trouble
	Services      []pageService
	Certificates  pageCertificates
	Query         string
	Total, Found  int             // sessions
	Sessions      []listedSession // the newest of those that were found
	Missing       []string
	Warnings      []logLine
}

// More is how many of those that were found are not shown.
func (d pageData) More() int { return d.Found - len(d.Sessions) }

func (p *statusPage) data(r *http.Request) pageData {
	query := r.URL.Query().Get("q")
	query = strings.ToValidUTF8(query[:min(len(query), queryMost)], "")
	all, missing := p.operator.look(r.Context(), query, func(int, overview) {})
	data := pageData{
		Host: p.web.access.Load().hostname, Version: version(), Now: time.Now(), Up: time.Since(processBegun), Processes: 1,
		Ready: p.admin.ready(), History: draw(p.history.list()), Services: p.services(all.States), Query: query,
		Total: all.Total, Found: all.Found, Sessions: all.Newest, Missing: missing, Warnings: p.recent.list(),
	}
	if p.generations != nil {
		data.Processes += len(p.generations.all())
	}
	if router := p.placer.Load(); router != nil {
		data.Backends = pageBackends(router.States(), all.Backends)
	}
	for _, b := range data.Backends {
		if b.trouble {
			data.Down++
		}
	}
	if certs := p.admin.certs.Load(); certs != nil {
		data.Certificates = describeCare(p.metrics.certs.look(certs), certs.status(), data.Now)
	}
	return data
}

// pageService is a service that is listened for.
type pageService struct {
	Name           string
	Addresses      []string
	States         []stateCount
	Connections    uint64
	Sent, Received int64
}

// stateCount says how many sessions are in a state.
type stateCount struct {
	State proxy.SessionState
	Count int
}

// services tells of those that are listened for, and of those that were and have sessions yet.
func (p *statusPage) services(states map[string]sessionCount) []pageService {
	addresses := make(map[string][]string)
	for _, l := range p.server.Addresses() {
		addresses[string(l.Service)] = append(addresses[string(l.Service)], l.Address.String())
	}
	counts := make(map[string]proxy.ServiceCount)
	for _, c := range p.server.Counts().Services {
		counts[string(c.Service)] = c
	}
	var list []pageService
	for _, service := range configs.Services() {
		name := string(service)
		if addresses[name] == nil && states[name] == nil {
			continue
		}
		one := pageService{Name: name, Addresses: addresses[name], Connections: counts[name].Begun, Sent: counts[name].Sent, Received: counts[name].Received}
		for _, state := range slices.Sorted(maps.Keys(states[name])) {
			one.States = append(one.States, stateCount{state, states[name][state]})
		}
		list = append(list, one)
	}
	return list
}

// pageBackend is a backend.
type pageBackend struct {
	backends.BackendState
	backends.LoginCounts // of all protocols
	Sessions             int
	Notes                []mark
	Ways                 []way
	trouble              bool
}

// mark is a word with a look.
type mark struct{ Class, Text string }

// way is an address of a backend.
type way struct {
	backends.AddressState
	Class, Protocol, Where string
}

// pageBackends tells of backends, and how many sessions are there.
func pageBackends(states []backends.BackendState, sessions map[string]int) (list []pageBackend) {
	for _, state := range states {
		b := pageBackend{BackendState: state, Sessions: sessions[state.Name]}
		for _, s := range state.Services {
			b.add(s)
		}
		if state.Drained {
			b.Notes = append(b.Notes, mark{"warn", "drained"})
		}
		if state.Slow {
			b.Notes = append(b.Notes, mark{"warn", "coming back"})
		}
		if len(b.Notes) == 0 {
			b.Notes = []mark{{"good", "up"}}
		}
		list = append(list, b)
	}
	return list
}

// add adds what is known of a protocol.
func (b *pageBackend) add(s backends.ServiceState) {
	b.OK += s.Logins.OK
	b.Refused += s.Logins.Refused
	b.Temporary += s.Logins.Temporary
	switch {
	case s.Down:
		b.Notes, b.trouble = append(b.Notes, mark{"bad", string(s.Protocol) + " down"}), true
	case s.Problem != "":
		b.Notes, b.trouble = append(b.Notes, mark{"bad", string(s.Protocol) + ": " + s.Problem}), true
	}
	for _, a := range s.Addresses {
		class := map[string]string{"up": "good", "down": "bad"}[a.State]
		b.Ways = append(b.Ways, way{a, cmp.Or(class, "none"), string(s.Protocol), strings.TrimSpace(a.Address + " " + a.Host)})
	}
}

// pageCertificates are those that somebody should look at.
type pageCertificates struct {
	Serving int
	Care    int // certificates, files and orders, also those that are not shown
	List    []pageCertificate
	Wrong   []tlsstore.Problem
	Orders  []orders.Status
}

// pageCertificate is one of them.
type pageCertificate struct{ Names, Class, Expires, Problems string }

func describeCare(view certificateView, status []orders.Status, now time.Time) pageCertificates {
	failing := slices.DeleteFunc(slices.Clone(status), func(s orders.Status) bool { return s.By == "" || acmeState(s) != "failing" })
	care := pageCertificates{
		Serving: view.serving, Care: len(view.care) + len(view.wrong) + len(failing),
		Wrong: view.wrong[:min(len(view.wrong), certificatesShown)], Orders: failing[:min(len(failing), certificatesShown)],
	}
	for _, c := range view.care[:min(len(view.care), certificatesShown)] {
		one := pageCertificate{Names: shortNames(c.Names), Class: "good", Expires: c.NotAfter.Format("2006-01-02"), Problems: strings.Join(c.Problems, "; ")}
		switch left := c.NotAfter.Sub(now); {
		case left <= 0:
			one.Class, one.Expires = "bad", "expired on "+one.Expires
		case left <= soon:
			one.Class = "warn"
			one.Expires += ", in " + writeSpan(left)
		}
		care.List = append(care.List, one)
	}
	return care
}

// shortNames leaves out what is too much for a line.
func shortNames(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// writeSpan writes a time in the unit that people would take.
func writeSpan(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// writeBytes writes a size in the unit that people would take.
func writeBytes(n int64) string {
	size, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for size >= 1024 && len(units) > 1 {
		size, units = size/1024, units[1:]
	}
	if units[0] == "B" || size >= 10 {
		return fmt.Sprintf("%.0f %s", size, units[0])
	}
	return fmt.Sprintf("%.1f %s", size, units[0])
}
