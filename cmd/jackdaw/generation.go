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
	"syscall"
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
}

func newGeneration(p inherit.Process) *generation {
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Bell.Dial(ctx) },
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     adminIdleTime / 2, // before the other side hangs up
	}
	return &generation{pid: p.PID, bell: p.Bell, client: http.Client{Transport: transport}}
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
	for _, sign := range []error{io.EOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, sign) {
			return nil, errGone
		}
	}
	if err != nil && ctx.Err() == nil && !g.lives(ctx) { // it has ended in the middle of something
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

// awaitEnd returns when the process is gone, or ctx ends.
func (g *generation) awaitEnd(ctx context.Context) {
	response, err := g.send(ctx, "GET /life", nil)
	if err != nil {
		return
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // nothing ever comes
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
	gone func(pid int) // is called when one of the older has ended

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

// newGenerations opens the door at which the other generations ask this one, who answers with handler.
func newGenerations(log *zap.Logger, handler http.Handler, gone func(pid int)) (*generations, error) {
	door, err := inherit.NewDoor()
	if err != nil {
		return nil, err
	}
	g := &generations{log: log, gone: gone, door: door, changed: make(chan struct{})}
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

// answerLife says nothing for as long as we live.
func (g *generations) answerLife(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	select {
	case <-r.Context().Done():
	case <-g.ctx.Done():
	}
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

// follow forgets a generation when it has ended.
func (g *generations) follow(one *generation) {
	one.awaitEnd(g.ctx)
	g.mu.Lock()
	g.older = slices.DeleteFunc(g.older, func(other *generation) bool { return other == one })
	g.mu.Unlock()
	one.close()
	if g.ctx.Err() == nil {
		g.log.Info("a former process has ended", zap.Int("process", one.pid))
		g.gone(one.pid)
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
