package proxy

import (
	"encoding/json"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
)

// follower is a process and the next one, to which it tells what its sessions hold.
type follower struct {
	*testing.T
	old, next *Server
	watch     *HoldsWatch
	limits    configs.Limits
}

const formerProcess = 7

func newFollower(t *testing.T, limits configs.Limits) *follower {
	f := &follower{T: t, old: &Server{limits: newLimits(zap.NewNop())}, next: &Server{limits: newLimits(zap.NewNop())}, limits: limits}
	for _, s := range []*Server{f.old, f.next} {
		s.limits.most = 0
		s.limits.apply(limits)
	}
	f.watch = f.old.WatchHolds(func() {})
	return f
}

// follows passes on what is new, as it travels.
func (f *follower) follows() {
	f.Helper()
	for news, some := f.watch.Take(1); some; news, some = f.watch.Take(1) {
		text, err := json.Marshal(news)
		if err != nil {
			f.Fatal(err)
		}
		var heard Holds
		if err := json.Unmarshal(text, &heard); err != nil {
			f.Fatal(err)
		}
		f.next.LearnHolds(formerProcess, heard)
	}
}

// comes makes a session at a process, up to its login.
func (f *follower) comes(to *Server, client, user string) (*session, error) {
	s := &session{settings: &settings{listener: configs.Listener{Service: configs.IMAP}, limits: f.limits, log: zap.NewNop(), server: to}}
	s.peer = backends.Peer{Client: netip.MustParseAddr(client)}
	s.user = user
	err := to.limits.enter(s)
	if err == nil {
		err = to.limits.welcome(s)
	}
	if err == nil && user != "" {
		if err = to.limits.user(s); err == nil {
			to.limits.release(s, holdsPending)
		}
	}
	if err != nil {
		to.limits.release(s, holdsAll)
	}
	return s, err
}

func (f *follower) must(to *Server, client, user string) *session {
	f.Helper()
	s, err := f.comes(to, client, user)
	if err != nil {
		f.Fatalf("%s from %s is told: %v", user, client, err)
	}
	return s
}

func (f *follower) mustNot(client, user string, want error) {
	f.Helper()
	if _, err := f.comes(f.next, client, user); err != want {
		f.Errorf("%s from %s is told: %v, want %v", user, client, err, want)
	}
}

// Each limit is for a former process and this one together. What ends there makes room here, and so does the end of the process,
// whatever it has left.
func TestHoldsOfFormerProcess(t *testing.T) {
	for name, test := range map[string]struct {
		limits        configs.Limits
		user, another string
		from          string
		want          error
	}{
		"sessions":  {configs.Limits{Sessions: configs.Sessions{All: 2}}, "anna", "bert", "192.0.2.9", errFull},
		"a service": {configs.Limits{Sessions: configs.Sessions{By: map[configs.Service]int{configs.IMAP: 2}}}, "anna", "bert", "192.0.2.9", errFull},
		"a client":  {configs.Limits{SessionsPerClient: 2}, "anna", "bert", "192.0.2.1", errCrowd},
		"a user":    {configs.Limits{SessionsPerUser: 2}, "anna", "anna", "192.0.2.9", errUserFull},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(t, test.limits)
			first := f.must(f.old, "192.0.2.1", test.user)
			f.must(f.old, "192.0.2.1", test.user)
			f.follows()
			f.mustNot(test.from, test.another, test.want)
			f.old.limits.release(first, holdsAll)
			f.follows()
			here := f.must(f.next, test.from, test.another)
			f.mustNot(test.from, test.another, test.want)
			f.next.ForgetHolds(formerProcess)
			f.must(f.next, test.from, test.another)
			f.next.limits.release(here, holdsAll)
			f.watch.Stop()
		})
	}
}

// Connections without a login count against their network, until they have one; and what one process may have for its descriptors is
// its own affair.
func TestPendingOfFormerProcess(t *testing.T) {
	f := newFollower(t, configs.Limits{Sessions: configs.Sessions{All: 64}})
	var last *session
	for range leastShare {
		last = f.must(f.old, "192.0.2.1", "")
	}
	f.follows()
	f.mustNot("192.0.2.2", "", errShare)
	f.old.limits.release(last, holdsPending)
	f.follows()
	f.must(f.next, "192.0.2.2", "")
	f.next.limits.most = 2
	f.must(f.next, "192.0.3.1", "")
	f.mustNot("192.0.4.1", "", errFull)
	for _, l := range f.next.Limits() {
		if l.Name == limitSessions && (l.Limit != 2 || l.Now != 2) {
			t.Errorf("the limit is %+v", l)
		}
	}
}

// Sessions may come and go in both processes while one tells and the other learns; in the end each has counted right.
func TestHoldsRace(t *testing.T) {
	f := newFollower(t, configs.Limits{SessionsPerUser: 1000})
	var visits sync.WaitGroup
	for _, server := range []*Server{f.old, f.next} {
		for range 4 {
			visits.Go(func() {
				for range 200 {
					if s, err := f.comes(server, "192.0.2.1", "anna"); err == nil {
						server.limits.release(s, holdsAll)
					}
				}
			})
		}
	}
	over := make(chan struct{})
	go func() { visits.Wait(); close(over) }()
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
		}
		f.follows()
		_ = f.next.Limits()
	}
	for _, s := range []*Server{f.old, f.next} {
		if n := s.limits.services.All() + s.limits.clients.All() + s.limits.pending.All() + s.limits.users.All(); n != 0 {
			t.Errorf("%d are left", n)
		}
	}
}
