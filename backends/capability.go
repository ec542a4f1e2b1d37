package backends

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Capability is a thing that a store says it can do. Name is in upper case; Value is "" where the protocol has none.
type Capability struct {
	Name  string
	Value string
}

// String returns the name, and the value if there is one.
func (c Capability) String() string { return strings.TrimSpace(c.Name + " " + c.Value) }

// Capabilities is what a store says of itself before login, in its own order.
type Capabilities struct {
	List       []Capability
	Mechanisms []string // SASL, in upper case
}

// Has reports whether a capability of this name, in upper case, is there.
func (c Capabilities) Has(name string) bool {
	_, ok := c.Value(name)
	return ok
}

// Value returns the value of the capability of this name, in upper case.
func (c Capabilities) Value(name string) (string, bool) {
	i := slices.IndexFunc(c.List, func(have Capability) bool { return have.Name == name })
	if i < 0 {
		return "", false
	}
	return c.List[i].Value, true
}

// Equal reports whether two stores say the same.
func (c Capabilities) Equal(other Capabilities) bool {
	return slices.Equal(c.List, other.List) && slices.Equal(c.Mechanisms, other.Mechanisms)
}

// Common is what both can do, in the order of c: of two numbers the smaller, of two lists the words that both have.
func (c Capabilities) Common(other Capabilities) Capabilities {
	var common Capabilities
	for _, mine := range c.List {
		if theirs, ok := other.Value(mine.Name); ok {
			if value, ok := commonValue(mine.Name, mine.Value, theirs); ok {
				common.List = append(common.List, Capability{mine.Name, value})
			}
		}
	}
	for _, m := range c.Mechanisms {
		if slices.Contains(other.Mechanisms, m) {
			common.Mechanisms = append(common.Mechanisms, m)
		}
	}
	return common
}

// keeps tells what is missing of a promise, or what is smaller than promised.
func (c Capabilities) keeps(promised []Capability) error {
	for _, p := range promised {
		value, ok := c.Value(p.Name)
		if common, _ := commonValue(p.Name, p.Value, value); !ok || common != p.Value {
			return fmt.Errorf("%w: %s", ErrBroken, strings.TrimSpace(p.Name+" "+p.Value))
		}
	}
	return nil
}

// ErrBroken means that a store cannot do what clients were promised.
var ErrBroken = errors.New("not all is there that clients were promised")

func commonValue(name, a, b string) (string, bool) {
	switch {
	case a == b:
		return a, true
	case name == "SIZE" && unlimited(a): // RFC 1870 section 3
		return b, true
	case name == "SIZE" && unlimited(b):
		return a, true
	}
	m, errM := strconv.ParseUint(a, 10, 64)
	n, errN := strconv.ParseUint(b, 10, 64)
	if errM == nil && errN == nil {
		return strconv.FormatUint(min(m, n), 10), true
	}
	theirs := strings.Fields(b)
	words := slices.DeleteFunc(strings.Fields(a), func(w string) bool { return !slices.Contains(theirs, w) })
	return strings.Join(words, " "), len(words) > 0
}

// relayable leaves out the mechanisms that a proxy cannot offer. Channel binding ends at our TLS, so -PLUS is out; and a
// client that knows channel binding says "y" to us, at which a store that knows it, too, must fail (RFC 5802 section 6):
// so where a store lists any -PLUS, all SCRAM is out.
func relayable(mechanisms []string) []string {
	binds := func(m string) bool { return strings.HasSuffix(m, "-PLUS") }
	bound := slices.ContainsFunc(mechanisms, binds)
	var keep []string
	for _, m := range mechanisms {
		if !binds(m) && !(bound && strings.HasPrefix(m, "SCRAM-")) {
			keep = append(keep, m)
		}
	}
	return keep
}

// unlimited tells that a value of SIZE names no limit (RFC 1870 section 4).
func unlimited(size string) bool { return strings.Trim(size, "0") == "" }
