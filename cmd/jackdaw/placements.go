package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"sync"

	"go.uber.org/zap"

	"jackdaw/backends"
)

// placements keep the processes of a daemon at one in where the users of pools are: stores that share storage corrupt it where
// two of them serve one user. The newest process knows and decides, the others ask it, and tell it when a user's last session with them
// has ended.
type placements struct {
	log         *zap.Logger
	generations *generations
	router      func() *backends.Router

	mu       sync.Mutex
	left     []placement   // and not told yet
	replaced bool          // another process decides now
	wake     chan struct{} // takes one
}

// placement is a user of a pool, and the process that speaks of him.
type placement struct {
	Process       int
	Pool          string
	Local, Domain string `json:",omitempty"` // of a user who logs in
	User          string `json:",omitempty"` // in one word
}

func newPlacements(log *zap.Logger, router func() *backends.Router) *placements {
	return &placements{log: log, router: router, wake: make(chan struct{}, 1)}
}

// handle adds what other processes ask.
func (p *placements) handle(mux *http.ServeMux) {
	mux.HandleFunc("POST /placements/claim", answerOther(p.claim))
	mux.HandleFunc("POST /placements/left", answerOther(p.vacate))
	mux.HandleFunc("POST /placements/evict", answerOther(func(_ context.Context, one placement) (string, error) {
		p.router().Evict(one.Pool, one.User)
		return "", nil
	}))
}

// answerOther answers another process, which tells a T.
func answerOther[T any](do func(context.Context, T) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var one T
		answer, err := "", json.NewDecoder(r.Body).Decode(&one)
		if err == nil {
			answer, err = do(r.Context(), one)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(answer) // who has gone does not want it
	}
}

// claim holds a seat for a user who logs in at another process.
func (p *placements) claim(ctx context.Context, one placement) (member string, err error) {
	user := backends.User{Local: one.Local, Domain: one.Domain}
	evict := func(error) { p.evict(one.Process, one.Pool, user.String()) }
	member, err = p.router().ClaimFor(ctx, one.Process, one.Pool, user, evict)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.replaced { // the next process may have heard of it, or not
		return "", errNotServing
	}
	return member, err
}

// vacate gives up the seat of a user who has left another process.
func (p *placements) vacate(_ context.Context, one placement) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.replaced {
		return "", errNotServing
	}
	p.router().Vacate(one.Process, one.Pool, one.User)
	return "", nil
}

// handOver returns the seats for the process that takes over, which is asked from now on.
func (p *placements) handOver() []backends.Seat {
	p.mu.Lock()
	p.replaced = true
	p.mu.Unlock()
	return p.router().HandOver(os.Getpid(), &backends.Successor{Claim: p.claimThere, Left: p.leave})
}

// takeBack goes on as if there had been no handOver.
func (p *placements) takeBack() {
	p.router().TakeBack()
	p.mu.Lock()
	p.replaced = false
	p.mu.Unlock()
}

func (p *placements) claimThere(ctx context.Context, pool string, user backends.User) (member string, err error) {
	one := placement{Process: os.Getpid(), Pool: pool, Local: user.Local, Domain: user.Domain}
	err = p.generations.askNewest(ctx, "POST /placements/claim", one, &member)
	return member, err
}

func (p *placements) leave(pool, user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = append(p.left, placement{Process: os.Getpid(), Pool: pool, User: user})
	select {
	case p.wake <- struct{}{}:
	default: // it is waking up already
	}
}

// tell tells the newest process who has left us, until the end.
func (p *placements) tell() {
	ctx := p.generations.ctx
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		left := p.left
		p.left = nil
		p.mu.Unlock()
		for _, one := range left {
			if p.router().Holds(one.Pool, one.User) {
				continue // he is back
			}
			if err := p.generations.askNewest(ctx, "POST /placements/left", one, nil); err != nil && ctx.Err() == nil {
				p.log.Warn("a user's place is kept longer than he is there", zap.String("user", one.User), zap.Error(err))
			}
		}
	}
}

// evict has another process end its sessions of a user, who must leave a member.
func (p *placements) evict(process int, pool, user string) {
	for _, one := range p.generations.all() {
		if one.pid != process {
			continue
		}
		p.generations.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(p.generations.ctx, askLimit)
			defer cancel()
			if err := one.ask(ctx, "POST /placements/evict", placement{Pool: pool, User: user}, nil); err != nil {
				p.log.Warn("a former process may keep a user on a store that he has to leave", zap.String("user", user), zap.Error(err))
			}
		})
	}
}
