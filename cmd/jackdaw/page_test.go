package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/proxy"
	"jackdaw/tlsstore"
	"jackdaw/tlsstore/orders"
)

// What strangers have written stands on the page as text, wherever it stands.
func TestPageEscapes(t *testing.T) {
	const evil = `"><script src=//evil.example></script><img onerror=alert(1) src=x>`
	data := pageData{
		Host: evil, Version: evil, Query: evil, Missing: []string{evil}, Total: 1, Found: 1, Now: time.Now(),
		Sessions: []listedSession{{1, proxy.SessionInfo{User: evil, Actor: evil, Client: evil, Proxy: evil, SNI: evil, Backend: evil, Mechanism: evil}}},
		Warnings: []logLine{{time.Now(), "error", evil, evil}},
		Backends: pageBackends([]backends.BackendState{{Name: evil, Services: []backends.ServiceState{
			{Protocol: configs.IMAP, Problem: evil, Addresses: []backends.AddressState{{Address: evil, Error: evil, State: evil}}},
		}}}, nil),
		Services: []pageService{{Name: evil, Addresses: []string{evil}}},
		Certificates: pageCertificates{
			List: []pageCertificate{{evil, evil, evil, evil}}, Wrong: []tlsstore.Problem{{File: evil, Text: evil}},
			Orders: []orders.Status{{Name: evil, Error: evil, Failures: 1}},
		},
	}
	var text strings.Builder
	must(t, pageTemplate.Execute(&text, data))
	if n := strings.Count(text.String(), "evil.example"); n < 20 {
		t.Errorf("only %d of the places are on the page", n)
	}
	for _, tag := range regexp.MustCompile(`<(?:script|img)[^>]*>`).FindAllString(text.String(), -1) {
		if tag != `<script src="page.js" defer>` {
			t.Errorf("the page has %s", tag)
		}
	}
	if strings.Contains(text.String(), `"><`+"script src=//") {
		t.Error("an attribute was left")
	}
}

// Nothing of the page comes from elsewhere, nothing of it is in line, and browsers are told to keep it so.
func TestPagePolicy(t *testing.T) {
	d := idleDaemon(t, configs.Admin{})
	for path, kind := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/page.svg": "image/svg"} {
		w := ask(d, path, "127.0.0.1", nil)
		header := w.Header()
		if w.Code != 200 || !strings.HasPrefix(header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s", path, w.Code, header.Get("Content-Type"))
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; ", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if !strings.HasPrefix(header.Get(name), want) {
				t.Errorf("%s: %s is %q", path, name, header.Get(name))
			}
		}
		if strings.Contains(header.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: %q", path, header.Get("Content-Security-Policy"))
		}
		if found := regexp.MustCompile(`\bstyle=|\bon[a-z]+=|(?:src|href)="?(?:https?:|//)|url\(|@import`).FindString(w.Body.String()); found != "" {
			t.Errorf("%s has %q", path, found)
		}
	}
	for _, path := range []string{"/page.html", "/page/", "/..%2f", "/sessions", "/debug/pprof/"} {
		if w := ask(d, path, "127.0.0.1", nil); w.Code != http.StatusNotFound {
			t.Errorf("%s is answered %d", path, w.Code)
		}
	}
}

// Each minute has the logins that were counted in it, the present one included, and an hour is all that is kept.
func TestLoginHistory(t *testing.T) {
	total := loginMinute{"ok": 5}
	h := &loginHistory{count: func() loginMinute { return total }}
	if diff := cmp.Diff([]loginMinute{{"ok": 5}}, h.list()); diff != "" {
		t.Errorf("at first (-want +got):\n%s", diff)
	}
	h.next()
	total = loginMinute{"ok": 7, "denied": 1}
	h.next()
	total = loginMinute{"ok": 7, "denied": 3}
	if diff := cmp.Diff([]loginMinute{{"ok": 5}, {"ok": 2, "denied": 1}, {"denied": 2}}, h.list()); diff != "" {
		t.Errorf("later (-want +got):\n%s", diff)
	}
	next := &loginHistory{count: func() loginMinute { return loginMinute{"ok": 1} }}
	next.inherit(h.list())
	for range 70 {
		next.next()
	}
	if n := len(next.list()); n != minutesKept {
		t.Errorf("keeps %d minutes", n)
	}
}

// The plot has the present at its right end, and the highest bar is as high as there is room.
func TestPlot(t *testing.T) {
	p := draw([]loginMinute{{"ok": 6, "denied": 2}, {}, {"ok": 1, "unavailable": 1}})
	if p.Most != 8 || p.Failed != 3 || p.Total("ok") != 7 {
		t.Errorf("sums: %d %d %d", p.Most, p.Failed, p.Total("ok"))
	}
	want := []bar{
		{570, "2 min ago, 6 logged in, 2 wrong password or unknown user", []part{{"good", "25.00", "75.00", 571}, {"warn", "0.00", "25.00", 571}}},
		{580, "1 min ago", nil},
		{590, "this minute, 1 logged in, 1 store or directory failed", []part{{"good", "87.50", "12.50", 591}, {"bad", "75.00", "12.50", 591}}},
	}
	if diff := cmp.Diff(want, p.Bars); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var outcomes []string
	for _, o := range p.Outcomes {
		outcomes = append(outcomes, fmt.Sprint(o.name, o.Count))
	}
	if got := strings.Join(outcomes, " "); got != "ok7 denied2 unavailable1" {
		t.Errorf("legend: %s", got)
	}
}

// Trouble is seen at once: a store that is down, one that is drained, a certificate that expires, an order that fails.
func TestPageTrouble(t *testing.T) {
	list := pageBackends([]backends.BackendState{
		{Name: "a", Services: []backends.ServiceState{{Protocol: configs.IMAP, Logins: backends.LoginCounts{OK: 3}}, {Protocol: configs.Sieve, Down: true}}},
		{Name: "b", Drained: true}, {Name: "c"},
	}, map[string]int{"a": 1})
	var got []string
	for _, b := range list {
		got = append(got, fmt.Sprint(b.Name, b.Sessions, b.OK, b.trouble, b.Notes))
	}
	want := []string{"a1 3 true [{bad sieve down}]", "b0 0 false [{warn drained}]", "c0 0 false [{good up}]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	view := certificateView{serving: 9, care: []tlsstore.Certificate{
		{Names: []string{"old.example"}, NotAfter: now.Add(-time.Hour)},
		{Names: []string{"a", "b", "c", "d", "e", "f"}, NotAfter: now.AddDate(0, 0, 3)},
		{Names: []string{"weak.example"}, NotAfter: now.AddDate(0, 0, 80), Problems: []string{"weak key"}},
	}}
	care := describeCare(view, []orders.Status{{Name: "x", By: "x", Failures: 2}, {Name: "y", By: "y", NotAfter: now.AddDate(50, 0, 0)}}, now)
	wantCare := []pageCertificate{
		{"old.example", "bad", "expired on 2026-11-21", ""},
		{"a, b, c, d and 2 more", "warn", "2026-11-24, in 3 days", ""},
		{"weak.example", "good", "2027-02-09", "weak key"},
	}
	if diff := cmp.Diff(wantCare, care.List); diff != "" || len(care.Orders) != 1 || care.Care != 4 {
		t.Errorf("certificates: %d orders, %d in all (-want +got):\n%s", len(care.Orders), care.Care, diff)
	}
}

func TestPageUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 119 * time.Second: "119 s", 3 * time.Minute: "3 min", 47 * time.Hour: "47 h", 50 * time.Hour: "2 days",
	} {
		if got := writeSpan(d); got != want {
			t.Errorf("%v is %q", d, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 20 << 20: "20 MiB", 5 << 50: "5120 TiB"} {
		if got := writeBytes(n); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
}
