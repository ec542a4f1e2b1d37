package orders

import (
	"context"
	"strings"
	"unicode"

	"jackdaw/configs"
)

// wishes are the names that the configuration wants certificates for.
type wishes struct {
	exact    map[string]bool
	patterns []pattern
	domains  map[string]bool
	known    func(ctx context.Context, domain, sni string) (bool, error)
}

// pattern is a name with {domain} between before and after.
type pattern struct{ text, before, after string }

func newWishes(o Options) *wishes {
	w := &wishes{exact: make(map[string]bool), domains: make(map[string]bool), known: o.Known}
	for _, name := range o.Config.Names {
		if before, after, ok := strings.Cut(name, "{domain}"); ok {
			w.patterns = append(w.patterns, pattern{name, before, after})
		} else {
			w.exact[name] = true
		}
	}
	for _, domain := range o.Domains {
		w.domains[domain] = true
	}
	return w
}

// domain returns what {domain} must stand for to make name of the pattern.
func (p pattern) domain(name string) (domain string, ok bool) {
	rest, ok := strings.CutPrefix(name, p.before)
	if !ok {
		return "", false
	}
	domain, ok = strings.CutSuffix(rest, p.after)
	return domain, ok && domain != ""
}

// fits tells, without asking anybody, whether a pattern may want a name.
func (w *wishes) fits(name string) bool {
	for _, p := range w.patterns {
		if domain, ok := p.domain(name); ok && (w.known != nil || w.domains[domain]) {
			return true
		}
	}
	return false
}

// wanting returns the name or pattern of the configuration that wants a name, or "". It may ask a directory; with an error
// comes the pattern that would want the name if the directory says so.
func (w *wishes) wanting(ctx context.Context, name string) (string, error) {
	if w.exact[name] {
		return name, nil
	}
	for _, p := range w.patterns {
		domain, ok := p.domain(name)
		if !ok {
			continue
		}
		if w.domains[domain] {
			return p.text, nil
		}
		if w.known == nil {
			continue
		}
		if ok, err := w.known(ctx, domain, name); err != nil || ok {
			return p.text, err
		}
	}
	return "", nil
}

// dnsName returns a name that a client sent in the form that the cache has names in, and whether it is a DNS name, of
// A-labels (RFC 6066 section 3), that fits into the name of a file.
func dnsName(name string) (string, bool) {
	foreign := func(r rune) bool { return r > unicode.MaxASCII }
	if len(name) > configs.MaxACMEName || strings.ContainsFunc(name, foreign) {
		return "", false
	}
	lower, err := configs.DNSName(name)
	return lower, err == nil
}
