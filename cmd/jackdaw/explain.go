package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/backends/directories"
	"jackdaw/configs"
	"jackdaw/internal/wire"
	"jackdaw/proxy"
	"jackdaw/tlsstore"
)

// question is what explain is asked.
type question struct {
	file, socket                         string
	service, sni, user, client, listener string
}

func explainCommand() *cobra.Command {
	var q question
	var asJSON bool
	cmd := command("explain [-c FILE]", "Explain what a client would meet", `Say which certificate a client would be shown and why, what it would be promised before login, and,
with --user, which route decides and to which store the user would be brought, under which name. Nobody is logged in, and nothing
changes. The running daemon tells what holds now: drained and dead stores, where users of pools are, and who is blocked, denied or barred. With -c a
configuration file is read instead, and its stores are asked what they can do. The exit status is 1 if the client would get nowhere.`,
		func(cmd *cobra.Command) error {
			a, err := q.answer(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), a)
			} else {
				a.print(cmd.OutOrStdout())
			}
			if err == nil && a.Failure != "" {
				err = errReported
			}
			return err
		})
	flags := cmd.Flags()
	flags.StringVarP(&q.file, "config", "c", "", "configuration `file` to read instead of asking the daemon")
	socketFlag(cmd, &q.socket)
	flags.StringVar(&q.service, "service", "imaps", "`service` that the client connects to")
	flags.StringVar(&q.sni, "sni", "", "`name` that the client sends by SNI")
	flags.StringVar(&q.user, "user", "", "`name` that the client logs in with; for lmtp the recipient")
	flags.StringVar(&q.client, "client", explainedClient, "the client's `address`, or unix")
	flags.StringVar(&q.listener, "listener", "", "`name` of the listener; default: the first of the service")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if q.file != "" && flags.Changed("socket") {
			return errors.New("explain asks either a file or a daemon: give -c or --socket")
		}
		return nil
	}
	return cmd
}

// explainedClient is who asks if nothing else is said: somebody from elsewhere.
const explainedClient = "192.0.2.1"

// answer is what explain prints, in the order in which a connection meets it.
type answer struct {
	Listener     string           `json:"listener"`
	SNI          string           `json:"sni,omitempty"`
	Certificate  *tlsstore.Choice `json:"certificate,omitempty"` // none where the listener has no TLS
	Policy       []string         `json:"policy,omitempty"`
	Capabilities []string         `json:"capabilities,omitempty"`
	Mechanisms   []string         `json:"mechanisms,omitempty"`
	User         string           `json:"user,omitempty"`
	Routes       []string         `json:"routes,omitempty"`
	Backend      string           `json:"backend,omitempty"`
	State        string           `json:"state,omitempty"` // of the backend, in the running daemon
	Pool         string           `json:"pool,omitempty"`  // where the user is in it, in the running daemon
	Addresses    []string         `json:"addresses,omitempty"`
	TLS          string           `json:"tls,omitempty"`
	Name         string           `json:"name,omitempty"`
	ClientInfo   string           `json:"client_info,omitempty"`
	Login        []string         `json:"login,omitempty"`
	Warnings     []string         `json:"warnings,omitempty"`
	Failure      string           `json:"failure,omitempty"`
}

// answer reads the file, or asks the daemon.
func (q question) answer(ctx context.Context) (*answer, error) {
	if q.file == "" {
		return q.ask(ctx)
	}
	config, err := configs.Load(q.file)
	if err != nil {
		return nil, err
	}
	if _, err := q.find(config); err != nil {
		return nil, err
	}
	certs := openCerts(config)
	defer certs.Close()
	router, err := backends.PrepareRouter(config, nil, zap.NewNop())
	if err != nil {
		return nil, err
	}
	defer router.Retire(nil)
	if err := router.AskDirectories(); err != nil {
		return nil, err
	}
	return q.explain(ctx, &scene{config: config, certs: certs, router: router})
}

// scene is what decides what clients meet: what a file says, or what a daemon has made of it.
type scene struct {
	config *configs.Config
	certs  *tlsstore.Store
	router *backends.Router
	live   *operator // nil where nothing runs, and stores have to be asked
}

// explain goes the way of a connection. An error means that the question makes no sense.
func (q question) explain(ctx context.Context, s *scene) (*answer, error) {
	listener, err := q.find(s.config)
	if err != nil {
		return nil, err
	}
	peer := backends.Peer{Listener: listener.Name}
	if q.client != "unix" {
		if peer.Client, err = netip.ParseAddr(q.client); err != nil {
			return nil, fmt.Errorf("reading --client: %q is neither an address nor unix", q.client)
		}
	}
	a := &answer{Listener: fmt.Sprintf("%s (%s on %s)", listener.Name, listener.Service, listener.Address)}
	if a.Failure = s.turnsAway(listener, peer); a.Failure != "" {
		return a, nil
	}
	if listener.TLS != configs.TLSNone {
		choice := s.certs.Explain(q.sni, tlsstore.ListenerTLS{Service: listener.Service, Default: listener.Default})
		a.Certificate, a.Policy = &choice, describePolicy(s.config.TLS, listener, choice)
		if name, ok := s.certs.Match(q.sni); ok {
			peer.SNI, a.SNI = name, name
		}
		if q.sni != "" && peer.SNI == "" {
			text, _ := newCoverage(s.config, s.certs, time.Now()).of(strings.ToLower(q.sni))
			a.Warnings = append(a.Warnings, fmt.Sprintf("certificate for %s: %s", q.sni, text))
		}
		if choice.How == tlsstore.Refused {
			a.Failure = whyRefused(s.config.TLS, listener, choice)
			return a, nil
		}
	}
	if s.live == nil {
		a.askStores(ctx, s.router, listener.Service, peer)
	}
	a.promise(s.router, listener.Service, peer)
	if q.user != "" {
		a.place(ctx, q.user, s, listener, peer)
	}
	return a, nil
}

// turnsAway says why a client is not let in to a listener at all; "" if it is.
func (s *scene) turnsAway(l configs.Listener, peer backends.Peer) string {
	if !l.From.Empty() && !l.From.Contains(peer.Client) {
		return "the listener takes no connections from this client"
	}
	if s.live == nil {
		return ""
	}
	if blocked := s.live.blockOf(func(b proxy.Block) bool { return b.Network.IsValid() && b.Network.Contains(peer.Client.Unmap()) }); blocked != "" {
		return blocked
	}
	if err := s.live.server.Unwelcome(peer, l, s.config.Limits); err != nil {
		return "the client is turned away: " + err.Error()
	}
	return ""
}

// find finds the listener that the question is about.
func (q question) find(config *configs.Config) (configs.Listener, error) {
	for _, l := range config.Listen.Listeners {
		if l.Service == configs.Service(q.service) && (q.listener == "" || q.listener == l.Name) {
			return l, nil
		}
	}
	if err := checkService(q.service); err != nil {
		return configs.Listener{}, err
	}
	if q.listener != "" {
		return configs.Listener{}, fmt.Errorf("no listener of %s is called %q", q.service, q.listener)
	}
	return configs.Listener{}, fmt.Errorf("nothing listens for %s", q.service)
}

// askStores asks the stores that such a client could be led to what they can do, all at once: one that hangs must not take the time of
// the others.
func (a *answer) askStores(ctx context.Context, router *backends.Router, service configs.Service, peer backends.Peer) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stores := router.Reachable(service, peer)
	failures := make([]error, len(stores))
	var asked sync.WaitGroup
	for i, s := range stores {
		asked.Go(func() { failures[i] = s.Ask(ctx) })
	}
	if err := router.AskVerifier(ctx); err != nil {
		a.Warnings = append(a.Warnings, err.Error())
	}
	asked.Wait()
	for i, s := range stores {
		if failures[i] != nil {
			a.Warnings = append(a.Warnings, fmt.Sprintf("store %s does not answer: %v", s.Backend, failures[i]))
		}
	}
}

// promise says what such a client would be told before its login.
func (a *answer) promise(router *backends.Router, service configs.Service, peer backends.Peer) {
	common, known := router.Announced(service, peer)
	if !known {
		a.Warnings = append(a.Warnings, "no store was reached; little is promised before login")
	}
	for _, c := range proxy.Promised(service, common) {
		a.Capabilities = append(a.Capabilities, c.String())
	}
	if service != configs.LMTP { // nobody logs in
		a.Mechanisms = proxy.Offered(common)
	}
}

// place follows the user's way to a store, or that of mail for the user.
func (a *answer) place(ctx context.Context, name string, s *scene, listener configs.Listener, peer backends.Peer) {
	names := backends.NewNames(s.config.Users)
	mailbox, err := findUser(name, names, names.Realm(listener.Realm, peer.SNI), listener.Service)
	if err != nil {
		a.Failure = err.Error()
		return
	}
	user := mailbox.User
	a.User = user.String()
	if s.live != nil && listener.Service != configs.LMTP { // mail for him is delivered
		a.Failure = s.live.blockOf(func(b proxy.Block) bool { return b.User == a.User })
	}
	query := backends.Query{User: user, Service: listener.Service, Peer: peer, Asks: true}
	place, steps, err := s.router.Trace(ctx, query)
	defer place.Release()
	for _, step := range steps {
		a.Routes = append(a.Routes, describeStep(step))
	}
	if err != nil {
		a.fail("nobody is let in: " + err.Error())
		return
	}
	if place.Refuse != "" {
		a.fail("after the right password: service not permitted: " + place.Refuse)
	}
	a.Backend, a.Name, a.TLS = place.Service.Backend, place.Name, string(place.Service.Access.TLS)
	if listener.Service == configs.LMTP {
		address, err := place.Address(mailbox)
		if err != nil {
			a.fail(err.Error())
			return
		}
		a.Name = address.String()
	}
	a.ClientInfo = describeClientInfo(place.Service)
	a.Login = describeLogin(place.Service, place.Name, a.Certificate != nil && asksClients(s.config.TLS, listener, *a.Certificate))
	for _, address := range place.Service.Access.Addresses {
		a.Addresses = append(a.Addresses, address.String())
	}
	if s.live != nil {
		s.live.complete(a, user, place.Service)
	}
}

// fail says why the client gets nowhere, unless it does not come as far as that.
func (a *answer) fail(why string) { a.Failure = cmp.Or(a.Failure, why) }

// findUser makes the user of a name that a client logs in with, or for LMTP of the address that mail comes for.
func findUser(name string, names *backends.Names, realm string, service configs.Service) (backends.Mailbox, error) {
	if service != configs.LMTP {
		user, err := names.Canonical(name, realm)
		return backends.Mailbox{User: user}, err
	}
	args := wire.NewArgs("<" + name + ">")
	address, ok := args.Path()
	if !ok || !args.End() {
		return backends.Mailbox{}, fmt.Errorf("%q is no address", name)
	}
	return names.Mailbox(address, realm)
}

func describeStep(step backends.Step) string {
	route := fmt.Sprintf("%s -> %s", describeRoute(step.Route), describeTarget(step.Route))
	if step.Route.Line > 0 {
		route = fmt.Sprintf("line %d: %s", step.Route.Line, route)
	}
	switch {
	case step.Mismatch != "":
		return route + ": passed over, for its " + step.Mismatch
	case step.Answer == nil:
		return route + ": decides"
	case errors.Is(step.Err, directories.ErrNotFound):
		return route + ": passed over, the directory does not know the user" + age(step)
	case step.Err != nil:
		return route + ": " + step.Err.Error() + age(step)
	}
	return route + ": decides; the directory says " + describeAnswer(*step.Answer) + age(step)
}

// age says how long the directory took, or how old the answer is that was remembered, and since when it cannot be asked.
func age(step backends.Step) string {
	kept, down := step.Answer.Kept, step.Answer.Down
	switch {
	case kept.IsZero():
		return fmt.Sprintf(", after %v", step.Took.Round(time.Millisecond))
	case down.IsZero():
		return fmt.Sprintf(", as of %v ago", since(kept))
	}
	return fmt.Sprintf(", as of %v ago; it cannot be asked, for %v now", since(kept), since(down))
}

func since(moment time.Time) time.Duration { return time.Since(moment).Round(time.Second) }

// describeAnswer says what a directory has said, but no password.
func describeAnswer(answer directories.Answer) string {
	var said []string
	add := func(what, value string) {
		if value != "" {
			said = append(said, what+" "+value)
		}
	}
	add("backend", answer.Backend)
	add("user", answer.User)
	add("refused:", answer.Refuse)
	if answer.Password != "" {
		said = append(said, "a password to log in with")
	}
	return cmp.Or(strings.Join(said, ", "), "nothing but that the user is known")
}

func (a *answer) print(out io.Writer) {
	rows := newRows(out)
	defer rows.Flush()
	rows.row("listener", a.Listener)
	if a.Certificate != nil {
		rows.row("certificate", describeChoice(*a.Certificate)...)
	}
	rows.row("policy", a.Policy...)
	rows.row("capabilities", strings.Join(a.Capabilities, ", "))
	rows.row("mechanisms", strings.Join(a.Mechanisms, " "))
	rows.row("user", a.User)
	rows.row("routes", a.Routes...)
	rows.row("pool", a.Pool)
	rows.row("backend", a.Backend)
	rows.row("state", a.State)
	rows.row("addresses", a.Addresses...)
	rows.row("tls", a.TLS)
	rows.row("name there", a.Name)
	rows.row("client info", a.ClientInfo)
	rows.row("login", a.Login...)
	rows.row("warning", a.Warnings...)
	rows.row("failure", a.Failure)
}

// describeChoice says how the certificate was found, and which ones there are for it, best first.
func describeChoice(c tlsstore.Choice) []string {
	how := string(c.How)
	switch c.How {
	case tlsstore.Exact, tlsstore.Wildcard:
		how += " match for " + c.Name
	case tlsstore.Default:
		how += ": " + c.Default
	case tlsstore.Refused:
		how += ": alert unrecognized_name"
	}
	lines := []string{how}
	for _, certificate := range c.Certificates {
		lines = append(lines, fmt.Sprintf("%s, %s, expires %s, %s", strings.Join(certificate.Names, " "), certificate.KeyType,
			expiry(certificate.NotAfter, time.Now()), certificate.ChainFile))
	}
	return lines
}
