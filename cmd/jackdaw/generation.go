package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/internal/inherit"
)

// generation is a process of this daemon: one that has handed over, and keeps its sessions until they end, or the one that has
// taken over from us. It answers what it alone knows, by HTTP and JSON as on the admin socket, over a door that has no name.
type generation struct {
	pid    int
	bell   *inherit.Bell
	client http.Client
	told   chan struct{} // closed when it has told all that there was to tell, or is gone
	settle func()        // closes told
}

func newGeneration(p inherit.Process) *generation {
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Bell.Dial(ctx) },
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     adminIdleTime / 2, // before the other side hangs up
	}
	told := make(chan struct{})
	return &generation{
		pid: p.PID, bell: p.Bell, client: http.Client{Transport: transport}, told: told, settle: sync.OnceFunc(func() { close(told) }),
	}
}

// ask puts a question, which is the method and path of an endpoint, and fills in the answer, unless that is nil. A *refusal is what
// the process says against it, errNotServing that another one has to be asked.
func (g *generation) ask(ctx context.Context, question string, details, answer any) error {
	response, err := g.send(ctx, question, details)
	if err != nil {
		return fmt.Errorf("asking process %d: %w", g.pid, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return fmt.Errorf("asking process %d: %w", g.pid, err)
	case response.StatusCode == http.StatusMisdirectedRequest:
		return errNotServing
	case response.StatusCode != http.StatusOK:
		return &refusal{strings.TrimSpace(string(text))}
	case answer == nil:
		return nil
	}
	return json.Unmarshal(text, answer)
}

func (g *generation) send(ctx context.Context, question string, details any) (*http.Response, error) {
	method, path, _ := strings.Cut(question, " ")
	text, err := json.Marshal(details)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://jackdaw"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	response, err := g.client.Do(request)
	if err != nil && ctx.Err() == nil && !g.lives(ctx) { // it has ended; else it may have no descriptors, but sessions
		return nil, errGone
	}
	return response, err
}

// lives reports whether anybody opens.
func (g *generation) lives(ctx context.Context) bool {
	conn, err := g.bell.Dial(ctx)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// errGone says that a process has ended, and its sessions with it.
var errGone = errors.New("the process is gone")

// listen takes what the process tells, as it comes, until the process has ended or ctx ends. last reports whether it has told
// everything to the end.
func (g *generation) listen(ctx context.Context, heard func(pid int, news tidings)) (last bool) {
	response, err := g.send(ctx, "GET /life", nil)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(response.Body); ; {
		var news tidings
		if lines.Decode(&news) != nil {
			return last
		}
		heard(g.pid, news)
		last = news.Flow != nil
		if !news.More {
			g.settle()
		}
	}
}

// close gives up the way to the process.
func (g *generation) close() {
	g.client.CloseIdleConnections()
	g.bell.Close()
}

// generations are all processes of this daemon but this one, which is the newest until another has taken over. Safe for concurrent
// use.
type generations struct {
	log  *zap.Logger
	news kin

	door   *inherit.Door
	server *http.Server
	tasks  sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	older   []*generation
	newest  *generation   // that has taken over from us; nil as long as none has
	changed chan struct{} // closed when newest is another one
}

// kin is what generations tell each other without being asked. Its functions are called by several goroutines.
type kin struct {
	// tell says what the newer ones must know of this one: at once all, then what changes, and at the end of ctx what is left.
	tell func(ctx context.Context, say func(tidings) error)
	// heard takes what one of the older has told.
	heard func(pid int, news tidings)
	// silent drops what holds only while one of the older tells it: nobody is listened to any more, or anew.
	silent func(pid int)
	// gone is called after that when one of the older has ended.
	gone func(pid int)
}

// newGenerations opens the door at which the other generations ask this one, who answers with handler.
func newGenerations(log *zap.Logger, handler http.Handler, news kin) (*generations, error) {
	door, err := inherit.NewDoor()
	if err != nil {
		return nil, err
	}
	g := &generations{log: log, news: news, door: door, changed: make(chan struct{})}
	door.Forwarded = func(b *inherit.Bell) { g.succeed(newGeneration(inherit.Process{Bell: b})) }
	g.ctx, g.cancel = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /life", g.answerLife)
	mux.Handle("/", handler)
	faults, err := zap.NewStdLogAt(log, zap.ErrorLevel)
	if err != nil {
		return nil, err
	}
	g.server = &http.Server{Handler: mux, IdleTimeout: adminIdleTime, ErrorLog: faults}
	g.tasks.Go(func() {
		if err := g.server.Serve(door); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the door to other processes failed", zap.Error(err))
		}
	})
	return g, nil
}

// answerLife tells another process what it must know of us, for as long as we live.
func (g *generations) answerLife(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	out, now := json.NewEncoder(w), http.NewResponseController(w)
	_ = now.Flush()
	g.news.tell(ctx, func(news tidings) error { return errors.Join(out.Encode(news), now.Flush()) })
}

// adopt adds those that were there before us.
func (g *generations) adopt(processes []inherit.Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range processes {
		one := newGeneration(p)
		g.older = append(g.older, one)
		g.tasks.Go(func() { g.follow(one) })
	}
}

// has reports whether one of the older lives, as far as we know.
func (g *generations) has(pid int) bool {
	return slices.ContainsFunc(g.all(), func(one *generation) bool { return one.pid == pid })
}

// settle returns when each of the older has told what there was to tell, or with ctx.
func (g *generations) settle(ctx context.Context) {
	for _, one := range g.all() {
		select {
		case <-one.told:
		case <-ctx.Done():
			g.log.Warn("a former process does not say what its sessions hold", zap.Int("process", one.pid))
		}
	}
}

// announce tells the older generations that we are the newest. Who has ended in the meantime needs not know.
func (g *generations) announce() {
	for _, one := range g.all() {
		_ = one.bell.Forward(g.door.Bell())
	}
}

// succeed takes note of the newest generation. nil is us.
func (g *generations) succeed(newest *generation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.newest != nil {
		g.newest.close()
	}
	g.newest = newest
	close(g.changed)
	g.changed = make(chan struct{})
}

// askNewest asks the generation that has taken over. If that has itself been replaced, or is gone, the question waits for the next
// one.
func (g *generations) askNewest(ctx context.Context, question string, details, answer any) error {
	for {
		g.mu.Lock()
		newest, changed := g.newest, g.changed
		g.mu.Unlock()
		err := errNotServing
		if newest != nil {
			err = newest.ask(ctx, question, details, answer)
		}
		if _, refused := errors.AsType[*refusal](err); refused || err == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		case <-g.ctx.Done():
			return err
		}
	}
}

// listenPause is how long it takes until a process is listened to again that lives, and has told nothing more.
const listenPause = time.Second

// follow listens to a generation, and forgets it when it has ended.
func (g *generations) follow(one *generation) {
	for {
		last := one.listen(g.ctx, g.news.heard)
		g.news.silent(one.pid)
		if last || g.ctx.Err() != nil || !one.lives(g.ctx) {
			break
		}
		select { // it has no descriptors, perhaps
		case <-time.After(listenPause):
		case <-g.ctx.Done():
		}
	}
	g.mu.Lock()
	g.older = slices.DeleteFunc(g.older, func(other *generation) bool { return other == one })
	g.mu.Unlock()
	one.settle()
	one.close()
	if g.ctx.Err() == nil {
		g.log.Info("a former process has ended", zap.Int("process", one.pid))
		g.news.gone(one.pid)
	}
}

// processes are those that a next one must be able to ask: the older ones, and this one.
func (g *generations) processes() []inherit.Process {
	all := []inherit.Process{{PID: os.Getpid(), Bell: g.door.Bell()}}
	for _, one := range g.all() {
		all = append(all, inherit.Process{PID: one.pid, Bell: one.bell})
	}
	return all
}

func (g *generations) all() []*generation {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.older)
}

// Each asks all older generations at once, and returns what went wrong. For one that ends in the meantime nothing has.
func (g *generations) Each(ask func(*generation) error) error {
	var tasks sync.WaitGroup
	all := g.all()
	errs := make([]error, len(all))
	for i, one := range all {
		tasks.Go(func() { errs[i] = ask(one) })
	}
	tasks.Wait()
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, errGone) })...)
}

// close shuts the door, and forgets the others.
func (g *generations) close() {
	g.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
	defer cancel()
	if g.server.Shutdown(ctx) != nil {
		g.server.Close()
	}
	g.tasks.Wait()
	g.door.Close()
}

// askLimit bounds a question to another generation. One that takes longer hangs.
const askLimit = 10 * time.Second
