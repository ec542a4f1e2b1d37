package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"jackdaw/backends"
	"jackdaw/configs"
)

// probeFlags is what the command line says.
type probeFlags struct {
	service, mode, sni, ca, user, passwordFile, proxy string
	alpn                                              []string
	noSNI, insecure, asJSON                           bool
	timeout                                           time.Duration
}

func probeCommand() *cobra.Command {
	var f probeFlags
	cmd := &cobra.Command{
		Use:   "probe HOST:PORT [--service S] [--sni NAME] [--user USER]",
		Short: "Show what a server offers to a client",
		Long: `Connect to any mail server as a client does, and show its certificate, its TLS, what it says that it can do,
before TLS and after, and, with --user, whether it lets that user in. The password is read from --password-file, from the
terminal, or from standard input. It is not sent over a connection that anybody could listen to, unless --insecure is given.
The address is written as in a configuration: host:port, or unix:/path. The exit status is 1 if something is wrong.`,
		Example: `  jackdaw probe mail.example.net:993
  jackdaw probe 192.0.2.1:143 --sni mail.example.net --user alice@example.net
  jackdaw probe unix:/run/lmtp --service lmtp`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := f.visitor(args[0], cmd.Flags().Changed("alpn"))
			if err != nil {
				return err
			}
			if err := f.read(v, cmd); err != nil {
				return problem{err}
			}
			r := v.visit(cmd.Context())
			if f.asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				r.print(cmd.OutOrStdout())
			}
			if err == nil && len(r.Problems) > 0 {
				err = errReported
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.service, "service", "", "`service` to talk; default: the one whose port it is")
	flags.StringVar(&f.mode, "tls", "", "`when` TLS begins: implicit, starttls or none; default: as the service has it")
	flags.StringVar(&f.sni, "sni", "", "`name` to ask for by SNI, and to check the certificate for; default: the host")
	flags.BoolVar(&f.noSNI, "no-sni", false, "ask for no name")
	flags.StringSliceVar(&f.alpn, "alpn", nil, "`protocols` to offer by ALPN, \"\" for none; default: the service's")
	flags.StringVar(&f.ca, "ca", "", "PEM `file` with the authorities to trust; default: the system's")
	flags.StringVar(&f.user, "user", "", "log in with this `name`")
	flags.StringVar(&f.passwordFile, "password-file", "", "`file` with the password")
	flags.BoolVar(&f.insecure, "insecure", false, "send the password although the certificate is bad, or without TLS")
	flags.StringVar(&f.proxy, "send-proxy", "", "send a PROXY header first, for a client with this `address`")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "limit for each step")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

// registered has the services by their ports (RFC 8314 section 7.3 and others).
var registered = map[string]configs.Service{
	"143": configs.IMAP, "993": configs.IMAPS, "110": configs.POP3, "995": configs.POP3S,
	"587": configs.Submission, "465": configs.Submissions, "4190": configs.Sieve,
}

// visitor is a client that looks around.
type visitor struct {
	service        configs.Service
	probe          backends.Probe
	name           string // that the certificate is checked for; "" if there is none
	roots          *x509.CertPool
	user, password string
	insecure       bool
}

// visitor makes sense of the command line.
func (f probeFlags) visitor(address string, alpnGiven bool) (*visitor, error) {
	a, err := configs.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(a.Address) // a unix socket has neither
	service := cmp.Or(configs.Service(f.service), registered[port])
	switch {
	case service == "":
		return nil, fmt.Errorf("say by --service what to talk at %s: %s", a, serviceNames())
	case !service.Known():
		return nil, fmt.Errorf("no service %q; there are %s", service, serviceNames())
	case f.timeout <= 0:
		return nil, errors.New("--timeout must be longer than 0")
	case f.passwordFile != "" && f.user == "":
		return nil, errors.New("--password-file is of no use without --user")
	}
	if f.sni, err = asciiName(f.sni); err != nil {
		return nil, fmt.Errorf("--sni: %w", err)
	}
	mode, err := f.tlsMode(service, a)
	if err != nil {
		return nil, err
	}
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	if !alpnGiven {
		f.alpn = service.ALPN()
	}
	v := &visitor{service: service, name: cmp.Or(f.sni, host), user: f.user, insecure: f.insecure}
	v.probe = backends.Probe{Protocol: service.Protocol(), Address: a, Mode: mode, Proxy: client, Limit: f.timeout}
	v.probe.TLS = &tls.Config{
		MinVersion:         tls.VersionTLS10, // to look, not to trust: what is bad is said to be
		CipherSuites:       allCiphers(),
		NextProtos:         f.alpn,
		ServerName:         v.name,
		InsecureSkipVerify: true, // a bad certificate is looked at, too: see faults
	}
	if f.noSNI {
		v.probe.TLS.ServerName = ""
	}
	return v, nil
}

// asciiName writes a name with other letters as DNS has it. Any other name is sent as it stands, to see what comes of it.
func asciiName(name string) (string, error) {
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		return configs.DNSName(name)
	}
	return name, nil
}

func serviceNames() string {
	var names []string
	for _, s := range configs.Services() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// tlsMode says when TLS begins. On a unix socket nobody listens, and no name is known that a certificate could be for.
func (f probeFlags) tlsMode(service configs.Service, a configs.Address) (configs.TLSMode, error) {
	mode := configs.TLSMode(f.mode)
	switch {
	case mode == configs.TLSNone || mode == configs.TLSStartTLS || mode == configs.TLSImplicit:
		return mode, nil
	case f.mode != "":
		return "", fmt.Errorf("--tls is implicit, starttls or none, not %q", f.mode)
	case service.ImplicitTLS():
		return configs.TLSImplicit, nil
	case a.Network == "unix" && f.sni == "":
		return configs.TLSNone, nil
	}
	return configs.TLSStartTLS, nil
}

// client reads --send-proxy: "192.0.2.1", "192.0.2.1:4321" or "[2001:db8::1]:4321".
func (f probeFlags) client() (*backends.Peer, error) {
	if f.proxy == "" {
		return nil, nil
	}
	from, err := netip.ParseAddrPort(f.proxy)
	if ip, errIP := netip.ParseAddr(f.proxy); errIP == nil {
		from, err = netip.AddrPortFrom(ip, 0), nil
	}
	if err != nil {
		return nil, fmt.Errorf("--send-proxy: %q is no address of a client", f.proxy)
	}
	return &backends.Peer{Client: from.Addr().Unmap().WithZone(""), Port: from.Port()}, nil
}

// allCiphers lets even a server be seen that has none but weak ones.
func allCiphers() (ids []uint16) {
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		ids = append(ids, suite.ID)
	}
	return ids
}

// read reads the files, and the password.
func (f probeFlags) read(v *visitor, cmd *cobra.Command) error {
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return fmt.Errorf("reading --ca: %w", err)
		}
		if v.roots = x509.NewCertPool(); !v.roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("reading --ca: no certificate in %s", f.ca)
		}
	}
	if f.user == "" {
		return nil
	}
	password, err := f.readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return fmt.Errorf("reading the password: %w", err)
	}
	v.password = strings.TrimSuffix(strings.TrimSuffix(string(password), "\n"), "\r")
	switch {
	case v.password == "":
		return errors.New("the password is empty")
	case strings.ContainsAny(v.user+v.password, "\x00\r\n"):
		return errors.New("a line end or NUL stands in the name or the password")
	}
	return nil
}

// maxPassword is as much as any protocol could carry.
const maxPassword = 8 << 10

func (f probeFlags) readPassword(in io.Reader, prompt io.Writer) ([]byte, error) {
	if f.passwordFile != "" {
		return os.ReadFile(f.passwordFile)
	}
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		fmt.Fprintf(prompt, "Password of %s: ", f.user)
		defer fmt.Fprintln(prompt)
		return term.ReadPassword(int(file.Fd()))
	}
	return io.ReadAll(io.LimitReader(in, maxPassword))
}

// visit goes to the server and takes down what it meets.
func (v *visitor) visit(ctx context.Context) *report {
	r := &report{Address: v.probe.Address.String(), Service: v.service, SNI: v.probe.TLS.ServerName, Problems: []string{}}
	if net.ParseIP(r.SNI) != nil {
		r.SNI = "" // RFC 6066 section 3: no addresses
	}
	met, err := v.reach(ctx, r)
	r.meet(met)
	r.judge(met.TLS, v)
	if err != nil {
		r.problem("%s", v.explain(err, met))
		return r
	}
	v.login(ctx, r, met)
	return r
}

// reach goes up to the place where a client would log in. For STARTTLS there are two connections: the first shows what
// everybody on the way can see and change.
func (v *visitor) reach(ctx context.Context, r *report) (*backends.Probed, error) {
	if v.probe.Mode != configs.TLSStartTLS {
		return v.probe.Open(ctx)
	}
	clear := v.probe
	clear.Mode = configs.TLSNone
	met, err := clear.Open(ctx)
	if err != nil {
		return met, err
	}
	if !met.Capabilities.Has("STARTTLS") && !met.Capabilities.Has("STLS") { // RFC 2595 section 4
		if v.service != configs.LMTP { // which comes from a mail server, seldom with TLS
			r.problem("STARTTLS is not offered")
		}
		return met, nil
	}
	r.BeforeTLS = ability(met.Capabilities)
	met.Leave()
	return v.probe.Open(ctx)
}

// explain adds what a person may have overlooked.
func (v *visitor) explain(err error, met *backends.Probed) error {
	_, clear := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case clear && v.probe.Mode == configs.TLSImplicit:
		return fmt.Errorf("%w; the server begins without TLS: is it --tls starttls?", err)
	case errors.Is(err, os.ErrDeadlineExceeded) && v.probe.Mode != configs.TLSImplicit && met.Greeting == "":
		return fmt.Errorf("%w; the server is silent: is it --tls implicit?", err)
	}
	return err
}

func (v *visitor) login(ctx context.Context, r *report, met *backends.Probed) {
	switch {
	case v.user == "":
		met.Leave()
		return
	case !v.insecure && r.TLS == nil && v.probe.Address.Network != "unix":
		r.problem("login: the password is not sent without TLS, unless --insecure is given")
		met.Leave()
		return
	case !v.insecure && r.TLS != nil && len(r.TLS.Faults) > 0:
		r.problem("login: the password is not sent to a server that may be another, unless --insecure is given")
		met.Leave()
		return
	}
	welcome, err := met.Login(ctx, v.user, v.password)
	r.laps(met)
	r.Login = &login{User: v.user, Accepted: err == nil}
	switch {
	case err == nil:
		r.Login.Capabilities = v.discreet(welcome.Capabilities)
	case backends.Denied(err):
		r.problem("%s (wrong name or password)", v.discreet(err.Error()))
	default:
		r.problem("%s", v.discreet(err.Error()))
	}
	met.Leave()
}
