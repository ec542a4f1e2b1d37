package main

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"jackdaw/proxy"
)

// crowd is of so many sessions, the oldest first, a second after each other.
func crowd(process, many int) iter.Seq[listedSession] {
	begun := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return func(yield func(listedSession) bool) {
		for i := range many {
			one := proxy.SessionInfo{
				ID: fmt.Sprintf("%016d", i), Service: "imaps", Listener: "imaps", Client: fmt.Sprintf("192.0.2.%d", i%250), SNI: "mail.a.example",
				Certificate: "*.a.example", TLS: "TLS 1.3", User: fmt.Sprintf("User%d@a.example", i), Backend: fmt.Sprintf("store%d", i%2),
				Mechanism: "PLAIN", State: proxy.StateRelay, Since: begun.Add(time.Duration(i) * time.Second), Sent: 12345, Received: 678,
			}
			if i%10 == 0 {
				one.Service, one.Backend, one.State = "pop3s", "", proxy.StateLogin
			}
			if !yield(listedSession{process, one}) {
				return
			}
		}
	}
}

// All are counted, those that are searched for are found, and the newest of them are shown, of two processes as of one.
func TestOverview(t *testing.T) {
	o := overviewOf(crowd(1, 1000), " uSER9")
	other := overviewOf(crowd(2, 930), "user9")
	o.add(other)
	want := overview{
		Total: 1930, Found: 111 + 41,
		States:   map[string]sessionCount{"imaps": {proxy.StateRelay: 900 + 837}, "pop3s": {proxy.StateLogin: 100 + 93}},
		Backends: map[string]int{"store0": 400 + 372, "store1": 500 + 465},
		Newest:   o.Newest,
	}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i, from := range map[int]string{0: "1 User999@", 69: "1 User930@", 70: "1 User929@", 71: "2 User929@", 151: "2 User9@"} {
		if got := fmt.Sprint(o.Newest[i].Process, " ", o.Newest[i].User); !strings.HasPrefix(got, from) {
			t.Errorf("the newest but %d is %s, want %s", i, got, from)
		}
	}
	o = overviewOf(crowd(1, 1007), "")
	o.add(overviewOf(crowd(2, 950), ""))
	if len(o.Newest) != newestShown || o.Newest[0].User != "User1006@a.example" || o.Newest[199].Process != 1 || o.Newest[199].User != "User878@a.example" {
		t.Errorf("of %d are shown %d, from %v to %v", o.Found, len(o.Newest), o.Newest[0], o.Newest[len(o.Newest)-1])
	}
}

// A search is for a part of whatever is known of a session, in any case.
func TestOverviewSearch(t *testing.T) {
	s := listedSession{1, proxy.SessionInfo{User: "Alice@a.example", Client: "192.0.2.7", Service: "imaps", Backend: "store1", State: proxy.StateRelay}}
	for query, want := range map[string]int{"": 1, "  ": 1, "ALICE": 1, "192.0.2": 1, "store1 ": 1, "relay": 1, "bob": 0, "aliceimaps": 0} {
		if got := overviewOf(slices.Values([]listedSession{s}), query).Found; got != want {
			t.Errorf("%q: %d", query, got)
		}
	}
}

// What is written of sessions is read as it was, and what is cut off is no list.
func TestSessionList(t *testing.T) {
	for _, many := range []int{0, 1, 100} {
		var text bytes.Buffer
		list := newListWriter(&text)
		list.add(crowd(1, many))
		list.add(crowd(2, many))
		list.end([]string{"process 3 \"hangs\""})
		if want := `],"missing":["process 3 \"hangs\""]` + "\n}\n"; !strings.HasSuffix(text.String(), want) {
			t.Errorf("the list ends in %q", text.String()[max(0, text.Len()-100):])
		}
		want := slices.Concat(slices.Collect(crowd(1, many)), slices.Collect(crowd(2, many)))
		var got []listedSession
		must(t, readSessions(bytes.NewReader(text.Bytes()), func(one listedSession) bool { got = append(got, one); return true }))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		end := bytes.LastIndexByte(text.Bytes(), ']') - len(`"missing":["process 3 \"hangs\""`) - 2
		for _, cut := range []int{0, 1, 5, end / 2, end} {
			if err := readSessions(bytes.NewReader(text.Bytes()[:cut]), func(listedSession) bool { return true }); err == nil {
				t.Errorf("%q is a list", text.String()[:cut])
			}
		}
	}
}

// The page says how many more there are, and is found with a form that needs no script.
func TestPageMore(t *testing.T) {
	o := overviewOf(crowd(1, 5000), "user")
	var text strings.Builder
	must(t, pageTemplate.Execute(&text, pageData{Now: time.Now(), Query: "user", Total: o.Total, Found: o.Found, Sessions: o.Newest}))
	for _, want := range []string{"5000 of 5000, the newest 200 of them here, 4800 more", `<input type="search" name="q" value="user"`, "<button>Search</button>"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// BenchmarkPage is what one look of one viewer costs while there are 20,000 sessions.
func BenchmarkPage(b *testing.B) {
	all := slices.Collect(crowd(1, 20_000))
	for _, query := range []string{"", "user1999"} {
		b.Run("q="+query, func(b *testing.B) {
			var size int
			for b.Loop() {
				o := overviewOf(slices.Values(all), query)
				var text bytes.Buffer
				if err := pageTemplate.Execute(&text, pageData{Now: time.Now(), Total: o.Total, Found: o.Found, Sessions: o.Newest}); err != nil {
					b.Fatal(err)
				}
				size = text.Len()
			}
			b.ReportMetric(float64(size), "page-B")
		})
	}
}

// BenchmarkSessionList is what the answer about 20,000 sessions costs.
func BenchmarkSessionList(b *testing.B) {
	all := slices.Collect(crowd(1, 20_000))
	b.ReportAllocs()
	for b.Loop() {
		list := newListWriter(io.Discard)
		list.add(slices.Values(all))
		list.end(nil)
	}
}
