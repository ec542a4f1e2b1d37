package configs

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Limits is the [limits] table. Durations are positive; of what is counted 0 is no limit.
type Limits struct {
	// Sessions is how many there may be at once.
	Sessions Sessions `toml:"sessions"`
	// SessionsPerClient is how many a client may have at once, by IPv4 address or IPv6 /64; default 1000. LMTP is not counted.
	SessionsPerClient int `toml:"sessions_per_client"`
	// SessionsPerUser is how many a user may have at once, over all services; default 100.
	SessionsPerUser int `toml:"sessions_per_user"`
	// FailuresPerClient is how many logins may fail of a client, by IPv4 address or IPv6 /64; default 20/min. The same wrong password of
	// the same user is counted once.
	FailuresPerClient Rate `toml:"failures_per_client"`
	// Exempt holds the networks of clients to which limits per client do not apply; default: local. PlaintextFrom is always
	// among them.
	Exempt Networks `toml:"exempt"`
	// Deny holds the networks of clients that are turned away. DenyFile names a file with more of them: one on a line, empty lines
	// and lines that begin with "#" are passed over. It is read again when it changes.
	Deny     Networks `toml:"deny"`
	DenyFile string   `toml:"deny_file"`
	// LoginTimeout runs from accept to the end of the login; default 60s.
	LoginTimeout time.Duration `toml:"login_timeout"`
	// IdleTimeout ends a logged-in session, or one of LMTP, in which nothing moves; default 35m for every service: RFC 9051
	// section 5.4 asks for 30, RFC 1939 section 3 for 10, RFC 5321 section 4.5.3.2.7 for 5. One duration, or a table by
	// service.
	IdleTimeout PerService[time.Duration] `toml:"idle_timeout"`
	// Attempts is how many logins may fail on one connection; default 3.
	Attempts int `toml:"attempts"`
	// FailureDelay passes between the beginning of an attempt and its refusal, more with repetition; default 2s.
	FailureDelay time.Duration `toml:"failure_delay"`
	// StopDelay passes between SIGTERM, when a load balancer hears that no more clients are wanted, and the moment in which
	// nobody is accepted any more; default 0.
	StopDelay time.Duration `toml:"stop_delay"`
	// StopTimeout is the time that sessions are ended in then, spread over it; default 15s. What has not found its end in it,
	// such as a message that is under way, is cut off.
	StopTimeout time.Duration `toml:"stop_timeout"`
	// UpgradeTimeout is how long a process that another one has replaced may keep its sessions; default 24h. In the second half
	// of it they are ended, spread over that time.
	UpgradeTimeout time.Duration `toml:"upgrade_timeout"`
}

// Sessions bounds the sessions that there are at once. In the file it is a number for all, or a table by service.
type Sessions struct {
	// All is for all services together; 0, the default: what the limit of file descriptors allows, less a reserve.
	All int
	// By has the services with a limit of their own.
	By map[Service]int
}

// sessions reads a number, or a table by service.
func (d *decoder) sessions(n *node, s *Sessions) {
	switch {
	case n.kind != unstable.Table:
		d.decode(n, reflect.ValueOf(&s.All).Elem())
	case len(n.keys) > 0:
		d.decode(n, reflect.ValueOf(&s.By).Elem())
	}
}

// Rate is how often something may happen; the zero Rate, in the file "off", is as often as it likes.
type Rate struct {
	Count int
	Per   time.Duration
}

// ParseNetworks reads networks as a value of the file names them: "192.0.2.0/24", "2001:db8::1" or "local".
func ParseNetworks(s string) (Networks, error) {
	networks, err := parseNetwork(s)
	if err != nil {
		return Networks{}, err
	}
	return networks.(Networks), nil
}

// rateUnits are the times that a rate can be for.
var rateUnits = map[string]time.Duration{"s": time.Second, "min": time.Minute, "h": time.Hour}

func parseRate(s string) (any, error) {
	if s == "off" {
		return Rate{}, nil
	}
	number, unit, _ := strings.Cut(s, "/")
	count, err := strconv.ParseUint(number, 10, 31)
	per := rateUnits[unit]
	if err != nil || count == 0 || per == 0 {
		return nil, fmt.Errorf(`%q is neither a rate such as "20/min" or "100/h" nor "off"`, s)
	}
	return Rate{int(count), per}, nil
}

func (l *Limits) check(d *decoder, n *node) {
	for key, limit := range map[string]time.Duration{
		"login_timeout": l.LoginTimeout, "failure_delay": l.FailureDelay,
		"stop_timeout": l.StopTimeout, "upgrade_timeout": l.UpgradeTimeout,
	} {
		if limit <= 0 {
			d.errorf(n.at(key), "%s must be longer than 0", key)
		}
	}
	for service, limit := range l.IdleTimeout {
		if limit <= 0 {
			d.errorf(n.at("idle_timeout").at(string(service)), "idle_timeout must be longer than 0")
		}
	}
	if l.StopDelay < 0 {
		d.errorf(n.at("stop_delay"), "stop_delay must not be negative")
	}
	for key, limit := range map[string]int{
		"sessions": l.Sessions.All, "sessions_per_client": l.SessionsPerClient, "sessions_per_user": l.SessionsPerUser,
	} {
		if limit < 0 {
			d.errorf(n.at(key), "%s must not be negative", key)
		}
	}
	for service, limit := range l.Sessions.By {
		if limit < 1 {
			d.errorf(n.at("sessions").at(string(service)), "sessions of a service must be at least 1; for no limit leave it out")
		}
	}
	if n.get("exempt") == nil {
		l.Exempt = Networks{Prefixes: localPrefixes(), Unix: true}
	}
	d.canonical(n.at("deny_file"), &l.DenyFile, d.relative)
	if l.Attempts < 1 {
		d.errorf(n.at("attempts"), "attempts must be at least 1")
	}
}
