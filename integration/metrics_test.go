package integration

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// promtool runs Prometheus' own tool, which must be content.
func promtool(t testing.TB, input string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(needServers(t), "prometheus/usr/bin/promtool"), args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAlerts: Prometheus takes the rules, and they say of a bad day what they should, and nothing of a good one.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "", "check", "rules", "../configs/alerts/jackdaw.yml")
	promtool(t, "", "test", "rules", "../configs/alerts/jackdaw_test.yml")
}

// TestDashboard: Prometheus understands every question of the dashboard.
func TestDashboard(t *testing.T) {
	t.Parallel()
	dashboard := contents(t, "../configs/grafana/jackdaw.json")
	variables := strings.NewReplacer(`\"`, `"`, "$__rate_interval", "5m", "$job", "jackdaw", "$instance", ".*")
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	questions := regexp.MustCompile(`"expr": "((?:[^"\\]|\\.)*)"`).FindAllStringSubmatch(dashboard, -1)
	if len(questions) < 20 {
		t.Fatalf("the dashboard has %d questions", len(questions))
	}
	for i, match := range questions {
		fmt.Fprintf(&rules, "  - record: question:%d\n    expr: %q\n", i, variables.Replace(match[1]))
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	keep(t, file, rules.String())
	promtool(t, "", "check", "rules", file)
}

// samples are metrics by name and labels, as they stand in Prometheus' text. Of histograms they have the number.
type samples map[string]float64

// readSamples reads what promtool is content with.
func readSamples(t testing.TB, text string) samples {
	t.Helper()
	promtool(t, text, "check", "metrics")
	all := make(samples)
	for line := range strings.Lines(text) {
		i := strings.LastIndexByte(line, ' ')
		if value, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64); err == nil && !strings.HasPrefix(line, "#") {
			all[line[:i]] = value
		}
	}
	return all
}

// sum adds up the samples of a name that have all of the labels, each as name="value".
func (s samples) sum(name string, labels ...string) (sum float64) {
	for key, value := range s {
		if strings.HasPrefix(key+"{", name+"{") && containsAll(key, labels) {
			sum += value
		}
	}
	return sum
}

// get asks for a page, and returns what is there.
func get(t testing.TB, url string) string {
	t.Helper()
	response, err := http.Get(url)
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, response.Status, text)
	}
	return string(text)
}

// onStatus is a line for a jackdaw's configuration, whose common part ends in the table [admin], and the URL that it leads to.
func onStatus() (line, url string) {
	address := net.JoinHostPort(newHost(), "19143")
	return fmt.Sprintf("listen = %q\n", address), "http://" + address
}

// TestMetrics: what clients do is counted, by words that no client has chosen.
func TestMetrics(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "lmtp")
	line, url := onStatus()
	jd := startJackdaw(t, line, dovecot.backend())
	jd.logged(t, "serving the status page") // which begins after the services
	jd.knows(dovecot)
	session := jd.login("mail.a.example", "alice")
	d, status := jd.tries("mail.b.example", "mallory")
	if !strings.HasPrefix(status, "NO ") {
		t.Fatalf("mallory is told %q", status)
	}
	d.conn.Close()
	verdicts(t, jd.courier(t).deliver("Counted", "sender@s.example", "alice@a.example", "nobody@a.example"), "250 ", "550")
	session.ask("NOOP")

	var now samples
	want := map[string]float64{
		`jackdaw_backend_up{backend="store1",protocol="imap"}`:                             1,
		`jackdaw_sessions{service="imaps",state="relay"}`:                                  1,
		`jackdaw_backend_sessions{backend="store1"}`:                                       1,
		`jackdaw_tls_names_total{match="exact"}`:                                           2,
		`jackdaw_recipients_total{outcome="delivered"}`:                                    1,
		`jackdaw_recipients_total{outcome="refused"}`:                                      1,
		`jackdaw_backend_logins_total{backend="store1",outcome="ok",protocol="imap"}`:      1,
		`jackdaw_backend_logins_total{backend="store1",outcome="refused",protocol="imap"}`: 1,
		`jackdaw_certificates`:                                                             3,
		`jackdaw_certificates_expiring{within="0d"}`:                                       0,
		`jackdaw_ready`:     1,
		`jackdaw_reload_ok`: 1,
	}
	eventually(t, "all is counted", func() bool {
		now = readSamples(t, get(t, url+"/metrics"))
		return now[`jackdaw_recipients_total{outcome="refused"}`] == 1
	})
	for key, value := range want {
		if got, ok := now[key]; !ok || got != value {
			t.Errorf("%s is %v, want %v", key, got, value)
		}
	}
	for _, test := range []struct {
		least float64
		sum   float64
		what  string
	}{
		{1, now.sum("jackdaw_logins_total", `service="imaps"`, `outcome="ok"`), "logins"},
		{1, now.sum("jackdaw_logins_total", `service="imaps"`, `outcome="denied"`), "refusals"},
		{2, now.sum("jackdaw_tls_handshakes_total", `outcome="full"`, `version="1.3"`), "handshakes"},
		{9, now.sum("jackdaw_relayed_bytes_total", `service="imaps"`, `direction="sent"`), "bytes to clients"},
		{9, now.sum("jackdaw_relayed_bytes_total", `service="imaps"`, `direction="received"`), "bytes from clients"},
		{2, now.sum("jackdaw_login_step_seconds_count", `step="handshake"`), "times of handshakes"},
		{2, now.sum("jackdaw_login_step_seconds_count", `step="dialogue"`), "times of dialogues"},
		{3, now.sum("jackdaw_login_step_seconds_count", `step="connect"`), "times of connecting"},
		{2, now.sum("jackdaw_login_step_seconds_count", `step="store"`), "times of stores"},
		{1, now.sum("jackdaw_backend_address_up", `backend="store1"`, `protocol="imap"`), "addresses that are up"},
		{100, now.sum("process_max_fds"), "descriptors"},
	} {
		if test.sum < test.least {
			t.Errorf("%s: %v, want at least %v", test.what, test.sum, test.least)
		}
	}
	for key := range now {
		for _, chosen := range []string{"alice", "mallory", "nobody", "mail.a.example", "mail.b.example", `"127.0.0.1"`} {
			if strings.Contains(key, chosen) {
				t.Errorf("a client has chosen a label: %s", key)
			}
		}
	}
	if text := get(t, url+"/healthz"); text != "alive\n" {
		t.Errorf("health is %q", text)
	}

	write(t, jd.file, contents(t, jd.file)+"\n[nonsense]\n")
	jd.signal(syscall.SIGHUP)
	jd.logged(t, "reload failed")
	now = readSamples(t, get(t, url+"/metrics"))
	if now["jackdaw_reload_ok"] != 0 || now.sum("jackdaw_reloads_total", `outcome="failed"`) != 1 || now.sum("jackdaw_log_messages_total", `level="error"`) < 1 {
		t.Errorf("a reload that has failed is not seen: %v", now["jackdaw_reload_ok"])
	}
}

// TestMetricsToken: beyond this machine a token is asked for; whoever stops is not ready, and says so first.
func TestMetricsToken(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap")
	line, url := onStatus()
	jd := frontend{limits: `stop_delay = "1m"`}.start(t, line+"token = \"0123456789abcdef\"\n", dovecot.backend())
	jd.logged(t, "serving the status page") // which begins after the services
	for token, want := range map[string]int{"": 401, "wrong": 401, "0123456789abcdef": 200} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("with the token %q: %s", token, response.Status)
		}
	}
	get(t, url+"/readyz")
	jd.signal(syscall.SIGTERM)
	jd.logged(t, "stopping")
	eventually(t, "it is not ready any more", func() bool {
		response, err := http.Get(url + "/readyz")
		must(t, err)
		response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	late := jd.login("mail.a.example", "alice") // who has not noticed is served yet
	late.ask("LOGOUT")
	late.conn.Close()
	jd.logged(t, `"msg":"session"`, "alice@a.example")
}

// flow asks the daemon on its socket what clients do, and returns the counters.
func (d *dynasty) flow() samples {
	d.t.Helper()
	client := d.byHTTP()
	var response *http.Response
	eventually(d.t, "an answer about metrics", func() bool { // a process that has handed over cuts off what it is asked in its last second
		var err error
		response, err = client.Get("http://jackdaw/metrics")
		return err == nil
	})
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(d.t, err)
	all := readSamples(d.t, string(text))
	maps.DeleteFunc(all, func(key string, _ float64) bool {
		counted := strings.Contains(key, "_total") || strings.Contains(key, "_count{") || key == "jackdaw_processes"
		return !strings.HasPrefix(key, "jackdaw_") || !counted || strings.Contains(key, "jackdaw_reload")
	})
	return all
}

// TestMetricsOverUpgrades: no counter ever goes back, neither when a process takes over nor when one ends; sessions of all of them
// are counted while they are there.
func TestMetricsOverUpgrades(t *testing.T) {
	t.Parallel()
	needServers(t)
	d := startDynasty(t)
	before := make(samples)
	check := func(when string) samples {
		t.Helper()
		now := d.flow()
		for key, was := range before {
			if now[key] < was && key != "jackdaw_processes" {
				t.Errorf("%s: %s went from %v to %v", when, key, was, now[key])
			}
		}
		before = now
		return now
	}
	var sessions []*dialog
	for generation := range 3 {
		session := d.login("mail.a.example", "alice")
		session.ask("NOOP")
		sessions = append(sessions, session)
		if got := check("after a login").sum("jackdaw_logins_total", `outcome="ok"`); got != float64(generation+1) {
			t.Errorf("%d logins are counted as %v", generation+1, got)
		}
		d.upgrade()
		check("after an upgrade")
	}
	sent := before.sum("jackdaw_relayed_bytes_total", `direction="sent"`)
	for i, session := range sessions {
		session.ask("NOOP")
		now := check("after some words")
		if more := now.sum("jackdaw_relayed_bytes_total", `direction="sent"`); more <= sent {
			t.Errorf("session %d: %v bytes were counted, and now %v", i, sent, more)
		} else {
			sent = more
		}
		session.conn.Close()
		eventually(t, "the process is gone that had the session", func() bool {
			return check("while a process ends")["jackdaw_processes"] == float64(len(sessions)-i)
		})
	}
	if got := before.sum("jackdaw_logins_total", `outcome="ok"`); got != 3 {
		t.Errorf("at the end %v logins are counted", got)
	}
}
