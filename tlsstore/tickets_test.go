package tlsstore

import (
	"crypto/tls"
	"testing"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// oneSession is a client's cache that offers its one session to every server, whatever the name.
type oneSession struct{ session *tls.ClientSessionState }

func (c *oneSession) Get(string) (*tls.ClientSessionState, bool)    { return c.session, c.session != nil }
func (c *oneSession) Put(_ string, session *tls.ClientSessionState) { c.session = session }

func TestResumption(t *testing.T) {
	dir := t.TempDir()
	must(t, leafFor(t, "a.example", "b.example").Write(dir, "both"))
	cfg := configs.TLS{Certificates: []string{dir}}
	tickets := NewTickets()
	openStore := func(tickets *Tickets) *Store {
		s := open(Options{TLS: cfg, Tickets: tickets, Log: zap.NewNop()}, quick)
		t.Cleanup(s.Close)
		return s
	}
	s, heir := openStore(tickets), NewTickets()
	heir.Inherit(tickets.OwnKeys())
	onA, onB := ListenerTLS{Default: pointer("a.example")}, ListenerTLS{Default: pointer("b.example")}
	tests := []struct {
		about         string
		first, second *tls.Config
		name, again   string
		want          bool
	}{
		{"same name", s.Config(onA), s.Config(onA), "a.example", "a.example", true},
		{"same name, in capitals", s.Config(onA), s.Config(onA), "a.example", "A.EXAMPLE", true},
		{"same name, other listener", s.Config(onA), s.Config(onB), "a.example", "a.example", true},
		{"same name after reload", s.Config(onA), openStore(tickets).Config(onA), "a.example", "a.example", true},
		{"same name, other process", s.Config(onA), openStore(heir).Config(onA), "a.example", "a.example", true},
		{"same name, other keys", s.Config(onA), openStore(NewTickets()).Config(onA), "a.example", "a.example", false},
		{"other name", s.Config(onA), s.Config(onA), "a.example", "b.example", false},
		{"from a name to none", s.Config(onA), s.Config(onA), "a.example", "", false},
		{"from none to a name", s.Config(onA), s.Config(onA), "", "a.example", false},
		{"from unknown to unknown", s.Config(onA), s.Config(onA), "x.example", "y.example", true},
		{"without name, other default", s.Config(onA), s.Config(onB), "", "", false},
	}
	for _, tt := range tests {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.about+" "+tls.VersionName(version), func(t *testing.T) {
				cache := new(oneSession)
				resumes := func(server *tls.Config, sni string) bool {
					// What counts is which names the server lets resume, and not whether the client checks them.
					c := client(sni)
					c.ClientSessionCache, c.MaxVersion = cache, version
					state, err := handshake(server, c)
					if err != nil {
						t.Fatal(err)
					}
					return state.DidResume
				}
				if resumes(tt.first, tt.name) {
					t.Fatal("the first connection resumed something")
				}
				if got := resumes(tt.second, tt.again); got != tt.want {
					t.Errorf("resumed: %v, want %v", got, tt.want)
				}
				if got := resumes(tt.second, tt.again); !got {
					t.Error("the third connection did not resume the second")
				}
			})
		}
	}
}

// A client that is refused by now is refused with a ticket, too, even with one that it was given after the refusal
// began, at the end of a handshake that had begun before.
func TestNoResumptionOfRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, leafFor(t, "a.example").Write(dir, "a"))
	s := open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.NewNop()}, quick)
	defer s.Close()
	served, refused := s.Config(ListenerTLS{Default: pointer("a.example")}), s.Config(ListenerTLS{Default: pointer("")})
	between := served.Clone()
	between.WrapSession = refused.WrapSession
	for _, first := range []*tls.Config{served, between} {
		c := client("")
		c.ClientSessionCache = new(oneSession)
		if _, err := handshake(first, c); err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(refused, c); err == nil {
			t.Error("a client without a name resumed where such clients are refused")
		}
	}
}
