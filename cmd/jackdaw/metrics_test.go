package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/freeport"
	"jackdaw/internal/inherit"
)

// idleDaemon serves nothing yet.
func idleDaemon(t *testing.T, admin configs.Admin) *daemon {
	t.Helper()
	config := &configs.Config{Hostname: "mx.example", Admin: admin, Log: configs.Log{Level: "error"}}
	d := newDaemon(config, inherit.NewSockets())
	d.log = zap.NewNop()
	d.web.access.Store(&webAccess{token: admin.Token, hostname: config.Hostname})
	return d
}

// counted makes what a process has counted, sorted by name, from Prometheus' text.
func counted(t *testing.T, text string) (all []*dto.MetricFamily) {
	t.Helper()
	decoder := expfmt.NewDecoder(strings.NewReader(text), expfmt.NewFormat(expfmt.TypeTextPlain))
	for {
		family := new(dto.MetricFamily)
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, family)
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

// written is the other way.
func written(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var text strings.Builder
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&text, f)
		must(t, err)
	}
	return text.String()
}

const (
	countedHere = `
# TYPE jackdaw_connections_total counter
jackdaw_connections_total{service="imap"} 2
jackdaw_connections_total{service="imaps"} 30
# TYPE jackdaw_login_step_seconds histogram
jackdaw_login_step_seconds_bucket{step="store",le="1"} 1
jackdaw_login_step_seconds_bucket{step="store",le="+Inf"} 2
jackdaw_login_step_seconds_sum{step="store"} 5
jackdaw_login_step_seconds_count{step="store"} 2
# TYPE jackdaw_sessions gauge
jackdaw_sessions{service="imaps",state="relay"} 7
`
	countedThere = `
# TYPE jackdaw_connections_total counter
jackdaw_connections_total{service="imaps"} 12
jackdaw_connections_total{service="pop3"} 1
# TYPE jackdaw_login_step_seconds histogram
jackdaw_login_step_seconds_bucket{step="store",le="1"} 3
jackdaw_login_step_seconds_bucket{step="store",le="+Inf"} 3
jackdaw_login_step_seconds_sum{step="store"} 1
jackdaw_login_step_seconds_count{step="store"} 3
# TYPE jackdaw_sessions gauge
jackdaw_sessions{service="imaps",state="relay"} 1
`
	countedTogether = `
# TYPE jackdaw_connections_total counter
jackdaw_connections_total{service="imap"} 2
jackdaw_connections_total{service="imaps"} 42
jackdaw_connections_total{service="pop3"} 1
# TYPE jackdaw_login_step_seconds histogram
jackdaw_login_step_seconds_bucket{step="store",le="1"} 4
jackdaw_login_step_seconds_bucket{step="store",le="+Inf"} 5
jackdaw_login_step_seconds_sum{step="store"} 6
jackdaw_login_step_seconds_count{step="store"} 5
# TYPE jackdaw_sessions gauge
jackdaw_sessions{service="imaps",state="relay"} 8
`
)

// Counters and gauges of several processes are one, label by label, and what is added up stays as it was.
func TestAddUp(t *testing.T) {
	here, there := counted(t, countedHere), counted(t, countedThere)
	if diff := cmp.Diff(countedTogether, "\n"+written(t, addUp(here, there))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(countedHere, "\n"+written(t, here)); diff != "" {
		t.Errorf("changed what it was given:\n%s", diff)
	}
}

// A process that ends takes its sessions with it, and leaves its counters: these never go back. Where another process adds up
// already, nothing is counted twice.
func TestProcessEnds(t *testing.T) {
	m := idleDaemon(t, configs.Admin{}).metrics
	m.older[17] = &account{flow: counted(t, countedHere)}
	m.forget(17)
	m.learn(18, encodeFlow(counted(t, countedThere)))
	m.forget(18)
	m.forget(19) // never said anything
	text := written(t, m.past)
	if !strings.Contains(text, `jackdaw_connections_total{service="imaps"} 42`) || !strings.Contains(text, `_count{step="store"} 5`) {
		t.Errorf("lost what they have counted:\n%s", text)
	}
	if strings.Contains(text, "jackdaw_sessions") {
		t.Errorf("keeps sessions that are gone:\n%s", text)
	}
	m.retire()
	m.older[20] = &account{flow: counted(t, countedThere)}
	m.forget(20)
	if again := written(t, m.past); again != text {
		t.Errorf("counted once more:\n%s", again)
	}
	m.takeBack()
	if again := written(t, m.past); !strings.Contains(again, `jackdaw_connections_total{service="imaps"} 54`) || len(m.older) > 0 {
		t.Errorf("the other process was not to add up, and this one does not:\n%s", again)
	}
}

// Whoever takes over goes on with what was counted, each process once: those that have ended before, those that live, and those that
// end while it takes over, of which it or the former one may have heard the last word, or nobody.
func TestCountersInherited(t *testing.T) {
	former, next := idleDaemon(t, configs.Admin{}).metrics, idleDaemon(t, configs.Admin{}).metrics
	flow := func(n int) []byte {
		return encodeFlow(counted(t, fmt.Sprintf("# TYPE jackdaw_logins_total counter\njackdaw_logins_total %d\n"+
			"# TYPE jackdaw_sessions gauge\njackdaw_sessions 1\n", n)))
	}
	const before, lives, endsKilled, ends, endsFirst = 1, 2, 3, 4, 5
	for pid, n := range map[int]int{before: 1, lives: 10, endsKilled: 100, ends: 900, endsFirst: 9_000} {
		former.account(pid).flow, _ = decodeFlow(flow(n))
	}
	former.forget(before)
	next.retire()
	next.learn(endsFirst, flow(10_000)) // both hear the last word, and the former one adds it up
	next.forget(endsFirst)
	former.learn(endsFirst, flow(10_000))
	former.forget(endsFirst)
	next.learn(ends, flow(1000))
	next.forget(ends)
	next.forget(endsKilled)
	must(t, next.inherit(former.handOver()))
	all, err := next.sum()
	must(t, err)
	if text := written(t, all); !strings.Contains(text, "jackdaw_logins_total 11111\n") || !strings.Contains(text, "jackdaw_sessions 1\n") {
		t.Errorf("counted were 11111 logins, and 1 session is there:\n%s", text)
	}
	if _, ok := next.older[os.Getpid()]; !ok || len(next.older) != 2 {
		t.Errorf("there live %v, want %d and this one", slices.Collect(maps.Keys(next.older)), lives)
	}
}

// Of a process that says nothing that makes sense, what it has said before holds.
func TestFlowOfNoUse(t *testing.T) {
	m := idleDaemon(t, configs.Admin{}).metrics
	m.daemon.generations = older(t, http.NotFoundHandler())
	m.older[7] = &account{flow: counted(t, countedHere)}
	all, err := m.sum()
	must(t, err)
	if text := written(t, all); !strings.Contains(text, `jackdaw_connections_total{service="imaps"} 30`) {
		t.Errorf("lost what it has counted:\n%s", text)
	}
}

// ask asks the page's listener, without a connection.
func ask(d *daemon, path, host string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "http://"+host+path, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	d.web.handler.ServeHTTP(w, r)
	return w
}

// Without a token a browser that was led astray by DNS gets nothing: it calls us by a name of somebody else's.
func TestRebinding(t *testing.T) {
	d := idleDaemon(t, configs.Admin{})
	for host, want := range map[string]int{
		"127.0.0.1:9143": 200, "[::1]:9143": 200, "[::1]": 200, "192.0.2.1": 200, "localhost": 200, "LOCALHOST:9143": 200,
		"mx.example:9143": 200, "MX.example": 200,
		"evil.example:9143": 421, "evil.example": 421, "127.0.0.1.evil.example": 421, "mx.example.evil.example": 421, "": 421,
	} {
		if got := ask(d, "/metrics", "x", func(r *http.Request) { r.Host = host }).Code; got != want {
			t.Errorf("Host %q is answered %d, want %d", host, got, want)
		}
	}
	if got := ask(d, "/healthz", "evil.example", nil).Code; got != 200 {
		t.Errorf("health is answered %d, and there is nothing to be kept from anybody", got)
	}
}

// With a token it alone counts, as browsers and as Prometheus send it.
func TestToken(t *testing.T) {
	const token = "correct horse battery staple"
	d := idleDaemon(t, configs.Admin{Token: token})
	for _, test := range []struct {
		what string
		give func(*http.Request)
		want int
	}{
		{"nothing", nil, 401},
		{"a bearer token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, 200},
		{"a password", func(r *http.Request) { r.SetBasicAuth("anybody", token) }, 200},
		{"another token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"r") }, 401},
		{"another password", func(r *http.Request) { r.SetBasicAuth(token, "correct horse") }, 401},
		{"an empty one", func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, 401},
	} {
		w := ask(d, "/metrics", "status.example", test.give)
		if w.Code != test.want {
			t.Errorf("%s: %d, want %d", test.what, w.Code, test.want)
		}
		if w.Code == 401 && (!strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") || strings.Contains(w.Body.String(), "jackdaw_")) {
			t.Errorf("%s: answered %v %q", test.what, w.Header(), w.Body)
		}
	}
	if got := ask(d, "/readyz", "status.example", nil).Code; got != 200 {
		t.Errorf("a load balancer without a token is answered %d", got)
	}
	d.admin.orders.close(errEnding)
	if got := ask(d, "/readyz", "status.example", nil).Code; got != 503 {
		t.Errorf("a load balancer is answered %d while we stop", got)
	}
}

// Nothing can be changed, whatever the method.
func TestReadOnly(t *testing.T) {
	d := idleDaemon(t, configs.Admin{})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		w := ask(d, "/metrics", "127.0.0.1", func(r *http.Request) { r.Method = method })
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s is answered %d", method, w.Code)
		}
	}
}

// ourMetrics lists the metrics of ours as the table in docs/metrics.md has them.
func ourMetrics(t *testing.T) (rows []string) {
	t.Helper()
	m := idleDaemon(t, configs.Admin{}).metrics
	descs := make(chan *prometheus.Desc, 100)
	flowCollector{m.daemon}.Describe(descs)
	stateCollector{m}.Describe(descs)
	close(descs)
	parts := regexp.MustCompile(`fqName: "([^"]*)", help: "([^"]*)".* variableLabels: \{([^}]*)\}`)
	for d := range descs {
		match := parts.FindStringSubmatch(d.String())
		if match == nil {
			t.Fatal("unreadable: ", d)
		}
		labels := strings.ReplaceAll(match[3], ",", ", ")
		rows = append(rows, strings.Join([]string{"| `" + match[1] + "`", labels, match[2], ""}, " | "))
	}
	return rows
}

// The page in docs tells of every metric, and of none that there is not.
func TestMetricsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	must(t, err)
	var documented []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `jackdaw_") {
			documented = append(documented, strings.TrimSpace(line))
		}
	}
	want := ourMetrics(t)
	for i := range want {
		want[i] = strings.TrimSpace(want[i])
	}
	slices.Sort(want)
	slices.Sort(documented)
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("docs/metrics.md (-want +got):\n%s", diff)
	}
}

var (
	metricName = regexp.MustCompile(`\b(?:jackdaw|process|go)_[a-z0-9_]+\b`)
	derived    = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

// The dashboard and the rules ask for no metric that there is not.
func TestMetricsAsked(t *testing.T) {
	d := idleDaemon(t, configs.Admin{})
	known := make(map[string]bool)
	for _, row := range ourMetrics(t) {
		known[metricName.FindString(row)] = true
	}
	families, err := d.metrics.state.Gather()
	must(t, err)
	for _, f := range families {
		known[f.GetName()] = true
	}
	for _, file := range []string{"../../configs/grafana/jackdaw.json", "../../configs/alerts/jackdaw.yml", "../../docs/metrics.md"} {
		text, err := os.ReadFile(file)
		must(t, err)
		asked := metricName.FindAllString(string(text), -1)
		if len(asked) < 10 {
			t.Errorf("%s asks for %q only", file, asked)
		}
		for _, name := range asked {
			if !known[name] && !known[derived.ReplaceAllString(name, "")] {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
	}
	text, err := os.ReadFile("../../configs/grafana/jackdaw.json")
	must(t, err)
	if !json.Valid(text) {
		t.Error("the dashboard is no JSON")
	}
}

// The listener goes where a reload wants it, and stays where it may stay. One that cannot be had is no reason to end.
func TestWebMoves(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	d := idleDaemon(t, configs.Admin{})
	t.Cleanup(d.web.close)
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	listen := func(address string) {
		d.web.apply(&configs.Config{Admin: configs.Admin{Listen: configs.Address{Network: "tcp", Address: address}}})
	}
	free := func() string {
		l, err := freeport.Listen("127.0.0.1")
		must(t, err)
		defer l.Close()
		return l.Addr().String()
	}
	answers := func(address string, want bool) {
		t.Helper()
		response, err := client.Get("http://" + address + "/healthz")
		if err == nil {
			response.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v, want an answer: %t", address, err, want)
		}
	}
	first, second := free(), free()
	listen(first)
	listen(first)
	answers(first, true)
	listen(second)
	answers(first, false)
	answers(second, true)
	listen(occupied.Addr().String())
	answers(second, false)
	occupied.Close()
	listen(occupied.Addr().String())
	answers(occupied.Addr().String(), true)
	d.web.apply(&configs.Config{})
	answers(occupied.Addr().String(), false)
}
