package main

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// mode is one kind of work, and what is measured at it.
type mode struct {
	name    string
	service string
	rows    []row
	run     func(*trial) error
	rsa     bool          // has the server an RSA key?
	version uint16        // of TLS; 0: 1.3
	groups  []tls.CurveID // that clients offer; nil: X25519
	moves   bool          // is it about bulk?
	once    bool          // whatever the number of rounds: memory takes minutes, and does not depend on the neighbours
}

// row is a line of the table.
type row struct {
	key   string
	about string
	unit  string
	goals []goal
}

// goal is what jackdaw is to reach: at most a part of what another one takes, or a figure.
type goal struct {
	Peer string  `json:"peer,omitempty"` // "": Most is the figure itself
	Most float64 `json:"most"`
}

// modes are in the order of the table.
var modes = slices.Concat(
	[]mode{
		handshakeMode("hs-ecdsa", "full handshake, TLS 1.3, ECDSA P-256", 0.60, mode{}),
		handshakeMode("hs-mlkem", "the same, X25519MLKEM768 offered, too", 0.85,
			mode{groups: []tls.CurveID{tls.X25519MLKEM768, tls.X25519}}),
		// In TLS 1.2 the groups of a client are the curves of the certificates that it takes, too (RFC 8422 section 5.1).
		handshakeMode("hs-tls12", "full handshake, TLS 1.2, ECDSA P-256", 0.70,
			mode{version: tls.VersionTLS12, groups: []tls.CurveID{tls.X25519, tls.CurveP256}}),
		handshakeMode("hs-rsa", "full handshake, TLS 1.3, RSA-2048", 1.55, mode{rsa: true}),
		{name: "hs-resumed", service: "imaps", run: (*trial).resumed,
			rows: []row{{"hs-resumed", "resumed handshake, TLS 1.3", "µs", []goal{{"haproxy", 0.55}}}}},
		loginMode("login-imaps", "imaps", "login on 993 and logout", goal{"haproxy", 0.75}),
		loginMode("login-pop3s", "pop3s", "login on 995 and logout", goal{"haproxy", 0.75}),
		loginMode("login-imap", "imap", "login by STARTTLS on 143"),
		loginMode("login-submission", "submission", "login by STARTTLS on 587"),
		loginMode("login-sieve", "sieve", "login by STARTTLS on 4190"),
		crowdMode(),
	},
	[]mode{
		noopMode("noop-1", 1, "NOOP, 1 session", 0.95),
		noopMode("noop-64", 64, "NOOP, 64 busy sessions", 0.85),
		bulkMode("down-1", 1, "download, 1 session", 0.75, (*session).fetch),
		bulkMode("down-8", 8, "download, 8 sessions", 0.75, (*session).fetch),
		bulkMode("up-1", 1, "upload, 1 session", 0.85, (*session).append),
		bulkMode("up-8", 8, "upload, 8 sessions", 0.85, (*session).append),
		idleMode("idle-2000", 2000),
		idleMode("idle-8000", 8000, goal{"haproxy", 0.35}, goal{"", 6}),
		growthMode(),
		stormMode(),
	},
)

func handshakeMode(name, about string, most float64, m mode) mode {
	m.name, m.service, m.run = name, "imaps", (*trial).handshakes
	m.rows = []row{{name, about, "µs", []goal{{"haproxy", most}}}}
	return m
}

func loginMode(name, service, about string, more ...goal) mode {
	all := slices.Concat(more, []goal{{"nginx", 0.65}, {"dovecot", 0.40}})
	return mode{name: name, service: service, run: (*trial).logins, rows: []row{{name, about, "µs", all}}}
}

func crowdMode() mode {
	m := loginMode("login-crowd", "imaps", fmt.Sprintf("login on 993 while %d others are in IDLE", crowdSize), goal{"haproxy", 0.75})
	m.run = (*trial).crowdedLogins
	return m
}

// growthMode has two rows for each size. That they are level is its goal, which nobody else has a part in.
func growthMode() mode {
	m := mode{name: "growth", service: "imaps", once: true, run: (*trial).growth}
	for _, size := range growthSizes {
		m.rows = append(m.rows, row{memoryRow(size), fmt.Sprintf("growth: memory of each of %d sessions", size), "KiB", nil})
	}
	for _, size := range growthSizes {
		m.rows = append(m.rows, row{loginRow(size), fmt.Sprintf("growth: a login beside %d sessions", size), "µs", nil})
	}
	return m
}

func stormMode() mode {
	noSlower := []goal{{"haproxy", 1}, {"nginx", 1}}
	return mode{name: "storm", service: "imaps", run: (*trial).storm, rows: []row{
		{"storm", fmt.Sprintf("%d clients come back at once: until the last is logged in", crowdSize), "s", nil},
		{"storm p50", "- median of answers to others meanwhile", "ms", noSlower},
		{"storm p99", "- 99 of 100 answers", "ms", noSlower},
	}}
}

func noopMode(name string, sessions int, about string, most float64) mode {
	noSlower := []goal{{"haproxy", 1}, {"nginx", 1}}
	return mode{name: name, service: "imaps",
		run: func(t *trial) error { return t.noops(sessions) },
		rows: []row{
			{name, about, "µs", []goal{{"haproxy", most}}},
			{name + " p50", "- median of the answers", "ms", noSlower},
			{name + " p99", "- 99 of 100 answers", "ms", noSlower},
		}}
}

func bulkMode(name string, sessions int, about string, most float64, move mover) mode {
	return mode{name: name, service: "imaps", moves: true,
		run:  func(t *trial) error { return t.bulk(sessions, move) },
		rows: []row{{name, about, "ms/GB", []goal{{"haproxy", most}}}}}
}

func idleMode(name string, sessions int, most ...goal) mode {
	return mode{name: name, service: "imaps", once: true,
		run: func(t *trial) error { return t.idle(sessions) },
		rows: []row{
			{name, fmt.Sprintf("memory of each of %d sessions in IDLE", sessions), "KiB", most},
			{name + " used", "- after each has moved 1 MB down and up", "KiB", most},
			{name + " kernel", "- of the kernel's memory", "KiB", nil},
		}}
}

func modeNames() []string {
	var names []string
	for _, m := range modes {
		names = append(names, m.name)
	}
	return names
}

// chooseModes finds modes by their names, or by the parts of names before the hyphen.
func chooseModes(list string) ([]mode, error) {
	if list == "all" {
		return modes, nil
	}
	var chosen []mode
	for name := range strings.SplitSeq(list, ",") {
		before := len(chosen)
		for _, m := range modes {
			if m.name == name || strings.HasPrefix(m.name, name+"-") {
				chosen = append(chosen, m)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("-modes: there is no %q, but %s", name, strings.Join(modeNames(), ", "))
		}
	}
	return chosen, nil
}
