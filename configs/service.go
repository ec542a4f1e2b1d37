package configs

import "slices"

// Service is what a port offers, by its registered name (RFC 6335).
type Service string

// The services that jackdaw offers.
const (
	IMAP        Service = "imap"
	IMAPS       Service = "imaps"
	POP3        Service = "pop3"
	POP3S       Service = "pop3s"
	Submission  Service = "submission"
	Submissions Service = "submissions"
	Sieve       Service = "sieve"
	LMTP        Service = "lmtp"
)

// serviceInfo is what the rest of the program must know of a service before it speaks its protocol.
type serviceInfo struct {
	service  Service
	protocol Service // the service that a backend offers for it: imap for imaps
	implicit bool    // TLS begins with the first byte (RFC 8314 section 3)
	alpn     []string
}

var services = []serviceInfo{
	{IMAP, IMAP, false, []string{"imap"}},
	{IMAPS, IMAP, true, []string{"imap"}},
	{POP3, POP3, false, []string{"pop3"}},
	{POP3S, POP3, true, []string{"pop3"}},
	{Submission, Submission, false, []string{"smtp"}}, // none is registered; this one stops protocols that are not ours
	{Submissions, Submission, true, []string{"smtp"}},
	{Sieve, Sieve, false, []string{"managesieve"}},
	{LMTP, LMTP, false, []string{"lmtp"}},
}

// Services lists every service, in the order of the documentation.
func Services() []Service {
	all := make([]Service, len(services))
	for i, s := range services {
		all[i] = s.service
	}
	return all
}

// Protocols lists the services that a backend can offer.
func Protocols() []Service {
	return slices.DeleteFunc(Services(), func(s Service) bool { return s.Protocol() != s })
}

// info returns the zero serviceInfo for a name that is no service.
func (s Service) info() serviceInfo {
	i := slices.IndexFunc(services, func(info serviceInfo) bool { return info.service == s })
	if i < 0 {
		return serviceInfo{}
	}
	return services[i]
}

// Known reports whether s is a service.
func (s Service) Known() bool { return s.info().service != "" }

// Protocol is the service under which a backend names the address for s: imap for imap and for imaps.
func (s Service) Protocol() Service { return s.info().protocol }

// ImplicitTLS reports whether TLS begins with the first byte (RFC 8314 section 3), unless the listener says otherwise.
func (s Service) ImplicitTLS() bool { return s.info().implicit }

// ALPN is the list of protocol names (RFC 7301) that a client may offer for s.
func (s Service) ALPN() []string { return s.info().alpn }
