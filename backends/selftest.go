package backends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Where the store verifies passwords, the proxy lets in whom the store lets in. A store that accepts any password, because
// it trusts the proxy or because somebody is debugging it, would open the door to everybody. So each service of each store
// is asked with an invented password, at first contact and then daily, and once more with the name of the first real user:
// only a plain refusal of the credentials passes.

// admit lets a login pass to a store that was tested, and has it tested now if it was not.
func (s *Service) admit(ctx context.Context) error {
	if s.trusted() {
		return nil
	}
	if err := s.downNow(); err != nil {
		return err
	}
	if err := s.inspect(ctx); err != nil {
		return err
	}
	if !s.trusted() {
		return s.Problem()
	}
	return nil
}

// tested reports whether the store has to prove that it refuses: nobody's password is shown to it in LMTP, nor where the proxy
// has verified it already.
func (s *Service) tested() bool {
	return !s.Access.AcceptsAnyPassword && s.Access.Login == configs.LoginSame && s.Protocol != configs.LMTP
}

func (s *Service) trusted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trust()
}

// trust is trusted where s.mu is held.
func (s *Service) trust() bool {
	return !s.tested() || s.distrust == nil && !s.passed.IsZero()
}

// inspect learns the store's capabilities, and tests it if that is due. Of several callers one does it, the others wait
// and take its result. A failure is news for a second, so that logins do not besiege a store that is down.
func (s *Service) inspect(ctx context.Context) error {
	return s.inspectSince(ctx, time.Now().Add(-retryFirst))
}

// inspectSince is inspect for somebody for whom only what was found after a moment is news.
func (s *Service) inspectSince(ctx context.Context, moment time.Time) error {
	select {
	case s.gate <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return errClosed
	}
	if err, fresh := s.lastInspection(moment); fresh {
		<-s.gate
		return err
	}
	// What is learned is for everybody, so it does not end with the login that asked first.
	done := make(chan error, 1)
	begun := s.background(func() {
		defer func() { <-s.gate }()
		limited, cancel := context.WithTimeoutCause(s.ctx, inspectLimit, errSlow)
		defer cancel()
		done <- s.conclude(s.look(limited))
	})
	if !begun {
		<-s.gate
		return errClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lastInspection returns the result of the last inspection, and whether it is news, which ended after that moment. A store that
// has failed the test is tested rarely: each test is a wrong password for the name it failed with.
func (s *Service) lastInspection(moment time.Time) (err error, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.distrust != nil {
		return s.distrust, s.inspected.After(moment.Add(-retryMost))
	}
	return s.failure, s.inspected.After(moment)
}

// distrusted says that a store answered a test otherwise than with a refusal.
type distrusted struct {
	user   string
	answer error // nil: it let the user in
}

func (d *distrusted) Error() string {
	if d.answer == nil {
		return fmt.Sprintf("kept out: the store let %q in with an invented password; "+
			"if that is meant to be, set accepts_any_password for it", d.user)
	}
	return fmt.Sprintf("kept out: the store does not refuse %q with an invented password, but answers: %v", d.user, d.answer)
}

// testAs asks the store on a connection of its own.
func (s *Service) testAs(ctx context.Context, user string) error {
	conn, caps, _, err := s.open(ctx, Opening{})
	if err != nil {
		return err
	}
	defer conn.Close()
	s.learn(caps)
	return s.test(ctx, conn, caps, user)
}

// test asks the store with an invented password.
func (s *Service) test(ctx context.Context, conn *wire.Conn, caps Capabilities, user string) error {
	began := time.Now()
	answer := within(ctx, inspectLimit, conn, "", func(context.Context) error {
		_, err := s.store.Login(conn, caps, &Plain{User: user, Password: invented()})
		return err
	})
	took := time.Since(began)
	if err := verdict(user, answer); err != nil {
		return err
	}
	s.store.Leave(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = took
	s.passed = time.Now()
	return nil
}

// rightPassword are the codes of RFC 5530 with which a store refuses somebody whose password it has found to be right.
var rightPassword = []string{"AUTHORIZATIONFAILED", "EXPIRED"}

// verdict judges a store's answer to an invented password; nil is good.
func verdict(user string, answer error) error {
	if answer == nil {
		return &distrusted{user: user}
	}
	if refusal, ok := errors.AsType[*Refusal](answer); ok {
		if refusal.Denied && !slices.Contains(rightPassword, refusal.Code) {
			return nil
		}
		return &distrusted{user: user, answer: answer}
	}
	return fmt.Errorf("testing the store with an invented password: %w", answer)
}

// testDue says with whose name the store is to be tested: one that it let in must be refused before it is trusted again.
func (s *Service) testDue() (user string, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if distrust, ok := errors.AsType[*distrusted](s.distrust); ok {
		return distrust.user, true
	}
	return TestUser, s.tested() && time.Since(s.passed) > testEvery
}

// conclude keeps the result of an inspection, and tells the operator of a change.
func (s *Service) conclude(err error) error {
	s.mu.Lock()
	_, distrust := errors.AsType[*distrusted](err)
	switch {
	case distrust:
		s.distrust, s.failure = err, nil
	case err == nil:
		s.distrust, s.failure = nil, nil
	default:
		s.failure = err
	}
	s.inspected = time.Now()
	problem, before := s.problem(), s.told
	if s.told = ""; problem != nil {
		s.told = problem.Error()
	}
	s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil:
	case problem == nil && before != "":
		s.log.Info("store is back")
	case problem != nil && problem.Error() != before:
		s.log.Error("store cannot be used", zap.Error(problem))
	}
	return err
}

// testRealUser asks the store once, after its first real login, to refuse an invented password for that very user: a store
// may refuse a name it does not know and still take any password for one that it does.
func (s *Service) testRealUser(user string) {
	s.mu.Lock()
	due := !s.userTested && s.tested() && s.ctx.Err() == nil
	if due {
		s.userTested = true
		s.tasks.Go(func() { s.testUser(user) })
	}
	s.mu.Unlock()
}

func (s *Service) testUser(user string) {
	select { // an inspection that began before must not have the last word
	case s.gate <- struct{}{}:
		defer func() { <-s.gate }()
	case <-s.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeoutCause(s.ctx, inspectLimit, errSlow)
	defer cancel()
	err := s.testAs(ctx, user)
	if _, ok := errors.AsType[*distrusted](err); ok {
		_ = s.conclude(err)
	} else if err != nil {
		s.mu.Lock()
		s.userTested = false // the store was not to be had; the next login asks again
		s.mu.Unlock()
	}
}
