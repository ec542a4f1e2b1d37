package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// report is what probe prints, in the order in which it meets it.
type report struct {
	Address      string          `json:"address"`
	Peer         string          `json:"peer,omitempty"`
	Service      configs.Service `json:"service"`
	Greeting     string          `json:"greeting,omitempty"`
	BeforeTLS    *abilities      `json:"before_tls,omitempty"`
	SNI          string          `json:"sni,omitempty"`
	TLS          *handshake      `json:"tls,omitempty"`
	Capabilities []string        `json:"capabilities,omitempty"`
	Mechanisms   []string        `json:"mechanisms,omitempty"`
	Login        *login          `json:"login,omitempty"`
	Steps        []step          `json:"steps,omitempty"`
	Problems     []string        `json:"problems"`
}

// abilities is what a server says of itself before TLS.
type abilities struct {
	Capabilities []string `json:"capabilities"`
	Mechanisms   []string `json:"mechanisms,omitempty"`
}

// handshake is what TLS has come to.
type handshake struct {
	Version      string             `json:"version"`
	Cipher       string             `json:"cipher"`
	Curve        string             `json:"curve,omitempty"`
	ALPN         string             `json:"alpn,omitempty"`
	ALPNOffered  []string           `json:"alpn_offered,omitempty"`
	Certificates []shownCertificate `json:"certificates"`
	Faults       []string           `json:"faults,omitempty"`
}

// login is how a login has ended.
type login struct {
	User         string `json:"user"`
	Accepted     bool   `json:"accepted"`
	Capabilities string `json:"capabilities,omitempty"`
}

// step is how long one step took.
type step struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"milliseconds"`
}

func (r *report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// meet takes down what was met up to the place of a login.
func (r *report) meet(met *backends.Probed) {
	if met.Remote != nil && met.Remote.Network() == "tcp" && met.Remote.String() != r.Address {
		r.Peer = met.Remote.String()
	}
	r.Greeting = met.Greeting
	can := ability(met.Capabilities)
	r.Capabilities, r.Mechanisms = can.Capabilities, can.Mechanisms
	r.laps(met)
}

func (r *report) laps(met *backends.Probed) {
	r.Steps = nil
	for _, lap := range met.Laps {
		r.Steps = append(r.Steps, step{lap.Step, float64(lap.Took.Microseconds()) / 1000})
	}
}

func ability(caps backends.Capabilities) *abilities {
	a := &abilities{Mechanisms: caps.Mechanisms}
	for _, c := range caps.List {
		a.Capabilities = append(a.Capabilities, c.String())
	}
	return a
}

// judge takes down what TLS has come to, and what is wrong with it.
func (r *report) judge(state *tls.ConnectionState, v *visitor) {
	if state == nil {
		return
	}
	now := time.Now()
	r.TLS = &handshake{
		Version:     tls.VersionName(state.Version),
		Cipher:      tls.CipherSuiteName(state.CipherSuite),
		ALPN:        state.NegotiatedProtocol,
		ALPNOffered: v.probe.TLS.NextProtos,
		Faults:      append(weaknesses(state), faults(state.PeerCertificates, v.name, v.roots, now)...),
	}
	if state.CurveID != 0 {
		r.TLS.Curve = state.CurveID.String()
	}
	for _, c := range state.PeerCertificates {
		r.TLS.Certificates = append(r.TLS.Certificates, show(c))
	}
	for _, fault := range r.TLS.Faults {
		r.problem("TLS: %s", fault)
	}
}

// discreet keeps back what a server says if it repeats the password: some repeat a command that they do not know.
func (v *visitor) discreet(text string) string {
	quoted := strconv.Quote(v.password)
	for _, secret := range []string{
		v.password,
		quoted[1 : len(quoted)-1],
		wire.EncodeBase64([]byte(v.password)),
		wire.EncodeBase64([]byte("\x00" + v.user + "\x00" + v.password)),
	} {
		if strings.Contains(text, secret) {
			return "login: the server's answer repeats the password, and is not shown"
		}
	}
	return text
}

func (r *report) print(out io.Writer) {
	rows := newRows(out)
	defer rows.Flush()
	rows.row("server", strings.TrimSuffix(fmt.Sprintf("%s (%s), %s", r.Address, r.Service, r.Peer), ", "))
	rows.row("greeting", r.Greeting)
	if r.BeforeTLS != nil {
		rows.row("before TLS", strings.Join(r.BeforeTLS.Capabilities, ", "))
		rows.row("mechanisms", strings.Join(r.BeforeTLS.Mechanisms, " "))
	}
	if r.TLS != nil {
		r.printTLS(rows)
	}
	rows.row("capabilities", strings.Join(r.Capabilities, ", "))
	rows.row("mechanisms", strings.Join(r.Mechanisms, " "))
	if r.Login != nil && r.Login.Accepted {
		rows.row("login", r.Login.User+" is let in")
		rows.row("after login", r.Login.Capabilities)
	}
	var steps []string
	for _, s := range r.Steps {
		steps = append(steps, fmt.Sprintf("%s %.1f ms", s.Name, s.Milliseconds))
	}
	rows.row("time", strings.Join(steps, ", "))
	rows.row("problem", r.Problems...)
}

func (r *report) printTLS(rows rows) {
	rows.row("sni", cmp.Or(r.SNI, "none"))
	rows.row("tls", strings.TrimSuffix(r.TLS.Version+", "+r.TLS.Cipher+", "+r.TLS.Curve, ", "))
	rows.row("alpn", cmp.Or(r.TLS.ALPN, "none")+", offered "+cmp.Or(strings.Join(r.TLS.ALPNOffered, " "), "none"))
	now := time.Now()
	var lines []string
	for _, c := range r.TLS.Certificates {
		lines = append(lines, fmt.Sprintf("%s, %s, expires %s, issued by %s",
			cmp.Or(strings.Join(c.Names, " "), c.Subject), c.KeyType, expiry(c.NotAfter, now), c.Issuer))
	}
	rows.row("certificate", lines...)
	if len(r.TLS.Faults) == 0 {
		rows.row("verified", "yes")
	} else {
		rows.row("verified", "no")
	}
}

// rows is a table of keys with their values, one below the other.
type rows struct{ *tabwriter.Writer }

func newRows(out io.Writer) rows { return rows{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

// row leaves out empty values. What comes from a server is not to move a terminal's cursor.
func (r rows) row(key string, values ...string) {
	for _, v := range values {
		if v == "" {
			continue
		}
		fmt.Fprintf(r, "%s\t%s\n", key, strings.Map(printable, v))
		key = ""
	}
}

func printable(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r): // errors of libraries have several lines
		return ' '
	}
	return '?'
}
