package main

import (
	"fmt"
	"time"

	"jackdaw/integration/measure"
)

// crowdSize is how many others are logged in where that is what matters.
const crowdSize = 2000

// crowd logs in that many users, who wait in IDLE. close must be called, also after an error.
func (t *trial) crowd(first, n int) (sessions []*session, close func(), err error) {
	sessions, close, err = t.sessions(t.client(), first, n)
	if err == nil {
		err = sleepAll(sessions)
	}
	return sessions, close, err
}

// crowdedLogins logs in and out among others.
func (t *trial) crowdedLogins() error {
	_, close, err := t.crowd(10_000, crowdSize)
	defer close()
	if err != nil {
		return err
	}
	return t.logins()
}

// growthSizes are the numbers of sessions at which growth is looked at.
var growthSizes = []int{500, 1000, 2000, 4000, 8000}

// growth measures at several sizes of the crowd what each of it takes, and what another login costs.
func (t *trial) growth() error {
	empty, _, err := t.memory()
	if err != nil {
		return err
	}
	before := 0
	for _, size := range growthSizes {
		_, close, err := t.crowd(10_000+before, size-before)
		defer close()
		if err != nil {
			return err
		}
		before = size
		full, _, err := t.memory()
		if err != nil {
			return err
		}
		t.figures[memoryRow(size)] = perSession(full-empty, size)
		if t.figures[loginRow(size)], err = t.loginCost(); err != nil {
			return err
		}
	}
	return nil
}

func memoryRow(size int) string { return fmt.Sprintf("growth %d", size) }
func loginRow(size int) string  { return fmt.Sprintf("growth %d login", size) }

// storm measures how long others wait for their answers while a crowd that was cut off comes back all at once, and how long
// that takes.
func (t *trial) storm() error {
	_, cut, err := t.crowd(10_000, crowdSize)
	defer func() { cut() }()
	if err != nil {
		return err
	}
	w, err := t.startWatch()
	if err != nil {
		return err
	}
	defer w.stop()
	if err = measure.Sleep(t.ctx, time.Second); err != nil {
		return err
	}
	cut()
	if _, err = w.lap(); err != nil { // what was before does not count
		return err
	}
	c := t.client()
	began, back := time.Now(), make([]*session, crowdSize)
	cut = func() { closeAll(back) }
	err = parallel(crowdSize, crowdSize, func(i int) (err error) {
		back[i], err = c.login(10_000 + i)
		return err
	})
	if err != nil {
		return err
	}
	t.figures[t.name] = time.Since(began).Seconds()
	found, err := w.lap()
	t.figures[t.name+" p50"], t.figures[t.name+" p99"] = found.Median, found.Most
	return err
}
