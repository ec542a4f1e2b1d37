package orders

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// Status is where the certificate for a name stands.
type Status struct {
	Name string `json:"name"`
	// By is what wants it in the configuration: the name itself or a pattern; "": nothing does, any more.
	By string `json:"by"`
	// NotAfter is when the certificate that was ordered expires; zero: there is none.
	NotAfter time.Time `json:"not_after,omitzero"`
	// Next is when it is ordered, or ordered anew; zero: never.
	Next time.Time `json:"next,omitzero"`
	// Held says that another certificate covers the name, so that none is ordered.
	Held bool `json:"held,omitempty"`
	// OnDemand says that there is no certificate, and none is ordered before a client asks for it.
	OnDemand bool `json:"on_demand,omitempty"`
	// Failures counts the orders that have failed since the last that has not; Failed and Error are of the last of them.
	Failures int       `json:"failures,omitempty"`
	Failed   time.Time `json:"failed,omitzero"`
	Error    string    `json:"error,omitempty"`
	// Problem is what is wrong with the files of this name in the cache.
	Problem string `json:"problem,omitempty"`
}

// Note says in words what is the matter, for people; "" if a valid certificate waits to be renewed.
func (s Status) Note() string {
	var notes []string
	switch {
	case s.By == "":
		notes = append(notes, "not ordered: it is in no names of the configuration")
	case s.Held:
		notes = append(notes, "not ordered: another certificate covers it")
	case s.OnDemand:
		notes = append(notes, "ordered when a client asks for it")
	}
	if s.Failures > 0 {
		notes = append(notes, fmt.Sprintf("failed %d times, last on %s: %s",
			s.Failures, s.Failed.Format(time.DateTime), s.Error))
	}
	if s.Problem != "" {
		notes = append(notes, s.Problem)
	}
	return strings.Join(notes, "; ")
}

// Status lists the names that are wanted and known of, and those with certificates that nobody wants any more, sorted.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Status
	for _, name := range slices.Sorted(maps.Keys(m.entries)) {
		list = append(list, m.entries[name].Status)
	}
	return list
}

// Counts says how many orders have led to a certificate, and how many have failed, since the Manager has begun.
func (m *Manager) Counts() (done, failed uint64) { return m.ordered.Load(), m.refused.Load() }

// Read is Status for a configuration that is not running here, by what lies in its cache. It changes nothing there. What is
// wrong with the cache as a whole is the error.
func Read(ctx context.Context, o Options) ([]Status, error) {
	return newManager(o).look(ctx)
}

// look finds out about all names, and lists them sorted. The list is good even where there is an error. A name of which
// nobody can say whether it is wanted is taken for wanted.
func (m *Manager) look(ctx context.Context) (list []Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	names, err := m.cache.names()
	names = slices.AppendSeq(names, maps.Keys(m.wishes.exact))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		by, unsure := m.wishes.wanting(ctx, name)
		if unsure != nil && err == nil { // one of them is enough
			err = fmt.Errorf("asking whether %s is wanted: %w", name, unsure)
		}
		list = append(list, m.lookAt(name, by))
	}
	return list, err
}

// lookAt finds out about one name.
func (m *Manager) lookAt(name, by string) Status {
	now := time.Now()
	s := Status{Name: name, By: by, Next: now}
	leaf, err := m.cache.certificate(name)
	f, failureErr := m.cache.failure(name)
	if err = errors.Join(err, failureErr); err != nil {
		s.Problem = oneLine(err)
	}
	s.Failures, s.Failed, s.Error = f.Count, f.Last, f.Error
	if leaf != nil {
		s.NotAfter, s.Next = leaf.NotAfter, renewal(leaf)
	}
	// What has failed in the future has failed while the clock was wrong; it must not keep anybody waiting until then.
	if f.Next.After(s.Next) && !f.Last.After(now.Add(time.Hour)) {
		s.Next = f.Next
	}
	s.Held = m.Held != nil && m.Held(name)
	// Who cannot read what is there does not order it anew: it may be good, and another frontend's, who could not read ours.
	_, unreadable := errors.AsType[*fs.PathError](err)
	if s.Held || by == "" || unreadable {
		s.Next = time.Time{}
	} else {
		s.OnDemand = by != name && s.NotAfter.IsZero()
	}
	return s
}

// renewal is when a third of a certificate's lifetime is left, or up to a tenth of that later. All frontends find the same
// time, and certificates that were ordered together have different ones.
func renewal(leaf *x509.Certificate) time.Time {
	third := leaf.NotAfter.Sub(leaf.NotBefore) / 3
	jitter := third / 10 * time.Duration(crc32.ChecksumIEEE(leaf.Raw)%1000) / 1000
	return leaf.NotAfter.Add(jitter - third)
}

// oneLine writes an error, in which there may be words of the authority, so that it can stand in a table.
func oneLine(err error) string {
	const most = 1000
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "?"), "\n", "; ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
