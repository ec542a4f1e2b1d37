package backends

import (
	"jackdaw/internal/census"
)

// Presence says how many sessions of a process there are at backends, by their names and who has them. Of what is left out nothing is
// said.
type Presence map[string]map[userKey]int32

// PresenceWatch follows the sessions that this process has at backends, for another process. It is for one goroutine.
type PresenceWatch struct {
	doors *doors
	wake  func()
	all   map[string]watchedDoor // doors.mu guards it
}

type watchedDoor struct {
	*door
	sessions *census.Watch[userKey]
}

// WatchPresence begins to follow: all that there is, is new. wake is called at each change, and does not block. Stop must be called.
func (r *Router) WatchPresence(wake func()) *PresenceWatch {
	d := r.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	w := &PresenceWatch{d, wake, make(map[string]watchedDoor)}
	for name, one := range d.all {
		w.add(name, one)
	}
	if d.watches == nil {
		d.watches = make(map[*PresenceWatch]struct{})
	}
	d.watches[w] = struct{}{}
	return w
}

// add follows one more backend. w.doors.mu is held.
func (w *PresenceWatch) add(name string, d *door) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.all[name] = watchedDoor{d, d.sessions.Watch(w.wake)}
}

// Take returns what is new or has changed, at most so many users, and whether that is anything.
func (w *PresenceWatch) Take(most int) (news Presence, some bool) {
	w.doors.mu.Lock()
	defer w.doors.mu.Unlock()
	news = make(Presence)
	for name, one := range w.all {
		if most <= 0 {
			break
		}
		one.mu.Lock()
		users := one.sessions.Take(most)
		one.mu.Unlock()
		if len(users) > 0 {
			news[name] = users
			most -= len(users)
		}
	}
	return news, len(news) > 0
}

// Stop ends following.
func (w *PresenceWatch) Stop() {
	w.doors.mu.Lock()
	defer w.doors.mu.Unlock()
	delete(w.doors.watches, w)
	for _, one := range w.all {
		one.mu.Lock()
		one.sessions.Stop()
		one.mu.Unlock()
	}
}

// LearnPresence counts the sessions that another process has at backends, beside those of this one.
func (r *Router) LearnPresence(process int, news Presence) {
	for name, users := range news {
		d := r.doors.of(name)
		d.mu.Lock()
		d.sessions.Learn(process, users)
		d.mu.Unlock()
	}
}

// ForgetPresence drops the sessions that another process had.
func (r *Router) ForgetPresence(process int) {
	r.doors.mu.Lock()
	defer r.doors.mu.Unlock()
	for _, d := range r.doors.all {
		d.mu.Lock()
		d.sessions.Forget(process)
		d.mu.Unlock()
	}
}
