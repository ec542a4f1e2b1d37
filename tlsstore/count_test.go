package tlsstore

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"jackdaw/configs"
)

// Every handshake is counted once, by what it leads to, whether a session is resumed or not, and whoever gives up then.
func TestCounts(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Policies: []configs.TLSPolicy{
			{SNI: []string{"special.example"}, Terms: configs.Terms{MinVersion: tls13}, Services: []configs.Service{configs.IMAPS}},
		},
	}, "mail.example", "special.example", "*.wild.example")
	with, without := pointer("mail.example"), pointer("")
	for _, tt := range []struct {
		about string
		l     ListenerTLS
		c     *tls.Config
		want  Handshakes
	}{
		{"exact", ListenerTLS{}, client("Mail.example"), Handshakes{Exact: 1}},
		{"exact, under a policy", ListenerTLS{Service: configs.IMAPS}, client("special.example"), Handshakes{Exact: 1}},
		{"not for this service", ListenerTLS{Service: configs.Sieve, Default: with}, client("special.example"), Handshakes{Unknown: 1}},
		{"wildcard", ListenerTLS{}, client("a.wild.example"), Handshakes{Wildcard: 1}},
		{"default for none", ListenerTLS{Default: with}, client(""), Handshakes{Default: 1}},
		{"default for another", ListenerTLS{Default: with}, client("other.example"), Handshakes{Default: 1}},
		{"default for what is no name", ListenerTLS{Default: with}, client("a/b"), Handshakes{Default: 1, Invalid: 1}},
		{"refused without a name", ListenerTLS{Default: without}, client(""), Handshakes{Nameless: 1}},
		{"refused for the name", ListenerTLS{Default: without}, client("other.example"), Handshakes{Unknown: 1}},
		{"refused for what is no name", ListenerTLS{Default: without}, client("a/b"), Handshakes{Unknown: 1, Invalid: 1}},
		{"unhappy client", ListenerTLS{Default: with}, &tls.Config{ServerName: "mail.example"}, Handshakes{Exact: 1}},
	} {
		for _, version := range versions {
			if tt.l.Service == configs.IMAPS && version == tls.VersionTLS12 {
				continue
			}
			counts := new(Counts)
			tt.l.Counts = counts
			tt.c.ClientSessionCache, tt.c.MaxVersion = new(oneSession), version
			want := Handshakes{}
			for range 3 { // the second and the third resume the first, if it comes to its end
				_, _ = handshake(f.Config(tt.l), tt.c)
				want = sum(want, tt.want)
			}
			if diff := cmp.Diff(want, counts.Handshakes()); diff != "" {
				t.Errorf("%s, %s: -want +got:\n%s", tt.about, tls.VersionName(version), diff)
			}
		}
	}
}

func sum(a, b Handshakes) Handshakes {
	return Handshakes{a.Exact + b.Exact, a.Wildcard + b.Wildcard, a.Default + b.Default, a.Unknown + b.Unknown,
		a.Nameless + b.Nameless, a.Invalid + b.Invalid}
}

// Names without a certificate are counted, and told of, whether there is a default or not; nothing else is.
func TestMissed(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Policies: []configs.TLSPolicy{{SNI: []string{"special.example"}, Services: []configs.Service{configs.IMAPS}}},
	}, "mail.example", "special.example")
	counts := new(Counts)
	var told []string
	for _, l := range []ListenerTLS{{Default: pointer("mail.example")}, {Default: pointer("")}} {
		l.Counts, l.Missed = counts, func(name string) { told = append(told, name) }
		for _, sni := range []string{
			"Wanted.example", "mail.example", "", "a/b", "special.example", "WANTED.example", "other.example", "a.mail.example",
		} {
			_, _ = handshake(f.Config(l), client(sni))
		}
	}
	want := []Missed{{Name: "wanted.example", Count: 4}, {Name: "a.mail.example", Count: 2}, {Name: "other.example", Count: 2}}
	if diff := cmp.Diff(want, counts.Missed(10)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[:2], counts.Missed(2)); diff != "" {
		t.Error(diff)
	}
	once := []string{"wanted.example", "wanted.example", "other.example", "a.mail.example"}
	if diff := cmp.Diff(slices.Concat(once, once), told); diff != "" {
		t.Error(diff)
	}
}

// However many names there are: none is counted too low, none too high by more than is said, and who has more than its
// share is there.
func TestMissedAreBounded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	counts, truth, total := new(Counts), make(map[string]uint64), uint64(0)
	for range 30_000 {
		name := fmt.Sprintf("n%d.example", random.IntN(5000))
		if random.IntN(4) == 0 {
			name = fmt.Sprintf("often%d.example", random.IntN(20))
		}
		counts.miss(name)
		truth[name]++
		total++
	}
	list := counts.Missed(1000)
	if len(list) != maxMissed {
		t.Errorf("%d names are kept, want %d", len(list), maxMissed)
	}
	kept := make(map[string]bool)
	for _, m := range list {
		kept[m.Name] = true
		if m.Count < truth[m.Name] || m.Count-m.Over > truth[m.Name] {
			t.Errorf("%s was asked for %d times: %+v", m.Name, truth[m.Name], m)
		}
	}
	for name, n := range truth {
		if n > total/maxMissed && !kept[name] {
			t.Errorf("%s was asked for %d of %d times, and is not there", name, n, total)
		}
	}
	if !slices.IsSortedFunc(list, func(a, b Missed) int { return int(b.Count) - int(a.Count) }) {
		t.Error("the most wanted is not the first")
	}
}

// Nothing is lost where many count at once, and others look.
func TestCountsTogether(t *testing.T) {
	counts := new(Counts)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				counts.count(Exact, "a.example")
				counts.miss(fmt.Sprintf("n%d.example", i%300))
				if i%100 == 0 {
					counts.Missed(5)
					counts.Handshakes()
				}
			}
		})
	}
	wg.Wait()
	var missed uint64
	for _, m := range counts.Missed(maxMissed) {
		missed += m.Count
	}
	if n := counts.Handshakes().Exact; n != 4000 || missed != 4000 {
		t.Errorf("counted %d handshakes and %d names, want 4000 of each", n, missed)
	}
}
