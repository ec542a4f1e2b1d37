package main

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"jackdaw/tlsstore"
)

// certificateView is what there is to say of all certificates at one moment.
type certificateView struct {
	serving  int
	expiring [5]int // of those that serve, by expiries
	first    time.Time
	problems int
	// care has those that somebody should look at: they serve, and expire soon or have a problem. The first to expire comes first.
	care  []tlsstore.Certificate
	wrong []tlsstore.Problem // files
}

// certificateWatch looks at all certificates now and then: a hundred thousand of them are not sorted for each question. Safe for
// concurrent use.
type certificateWatch struct {
	mu     sync.Mutex
	of     *certificates
	looked time.Time
	view   certificateView
}

// viewHolds is how old an answer may be.
const viewHolds = 30 * time.Second

// look tells of the certificates, as they were half a minute ago at worst.
func (w *certificateWatch) look(certs *certificates) certificateView {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.of != certs || now.Sub(w.looked) >= viewHolds {
		w.of, w.looked, w.view = certs, now, viewCertificates(certs.Store, now)
	}
	return w.view
}

func viewCertificates(store *tlsstore.Store, now time.Time) certificateView {
	v := certificateView{wrong: store.Problems()}
	v.problems = len(v.wrong)
	for _, c := range store.Certificates() {
		v.problems += len(c.Problems)
		if !c.Serving {
			continue
		}
		v.serving++
		left := c.NotAfter.Sub(now)
		for i, e := range expiries {
			if left <= e.within {
				v.expiring[i]++
			}
		}
		if v.first.IsZero() || c.NotAfter.Before(v.first) {
			v.first = c.NotAfter
		}
		if left <= soon || len(c.Problems) > 0 {
			v.care = append(v.care, c)
		}
	}
	slices.SortStableFunc(v.care, func(a, b tlsstore.Certificate) int { return cmp.Compare(a.NotAfter.Unix(), b.NotAfter.Unix()) })
	return v
}
