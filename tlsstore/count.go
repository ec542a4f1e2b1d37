package tlsstore

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// Counts counts handshakes by the certificate that they lead to, from their first message on: whether they come to an end
// is not its business. The zero value is ready, and outlives a Store, so that a reload begins nothing anew. Safe for
// concurrent use.
type Counts struct {
	exact, wildcard, fallback, unknown, nameless, invalid atomic.Uint64

	missed missed
}

// Handshakes are the counts of one moment.
type Handshakes struct {
	Exact    uint64 `json:"exact"`
	Wildcard uint64 `json:"wildcard"`
	Default  uint64 `json:"default"`
	Unknown  uint64 `json:"unknown"`  // refused for the name, of which there is no certificate, or none for this service
	Nameless uint64 `json:"nameless"` // refused for want of a name
	// Invalid are those among Default and Unknown that asked for what is no DNS name.
	Invalid uint64 `json:"invalid"`
}

// Handshakes returns what has been counted.
func (c *Counts) Handshakes() Handshakes {
	return Handshakes{
		Exact:    c.exact.Load(),
		Wildcard: c.wildcard.Load(),
		Default:  c.fallback.Load(),
		Unknown:  c.unknown.Load(),
		Nameless: c.nameless.Load(),
		Invalid:  c.invalid.Load(),
	}
}

// Missed is a name for which clients have asked in vain.
type Missed struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
	// Over tells by how much Count may be too high, where the name has taken the place of others.
	Over uint64 `json:"over,omitempty"`
}

// Missed lists the names most asked for in vain, at most n, the most wanted first.
func (c *Counts) Missed(n int) []Missed {
	c.missed.mu.Lock()
	list := slices.Clone(c.missed.list)
	c.missed.mu.Unlock()
	slices.SortFunc(list, func(a, b Missed) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return list[:min(n, len(list))]
}

// count counts a handshake of a client that sent sni, or nothing, and is shown what how says.
func (c *Counts) count(how How, sni string) {
	switch {
	case how == Exact:
		c.exact.Add(1)
	case how == Wildcard:
		c.wildcard.Add(1)
	case how == Default:
		c.fallback.Add(1)
	case sni == "":
		c.nameless.Add(1)
	default:
		c.unknown.Add(1)
	}
}

// miss counts a name that a client has sent and no certificate has. It returns the name in lower case, if it is one.
func (c *Counts) miss(sni string) (name string, ok bool) {
	if name, ok = dnsName(sni); !ok {
		c.invalid.Add(1)
		return "", false
	}
	c.missed.add(name)
	return name, true
}

// maxMissed is how many names are counted at once. Clients can make up as many as they like.
const maxMissed = 256

// missed counts names by the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, 2005): a name that is new takes the
// place of the one that was counted least, with its count. So no count is too low, and each name that has more than its
// share of all, which is one in maxMissed, is among them.
type missed struct {
	mu   sync.Mutex
	list []Missed
	at   map[string]int // where a name is in list
}

func (m *missed) add(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, known := m.at[name]
	switch {
	case known:
		m.list[i].Count++
		return
	case m.at == nil:
		m.at = make(map[string]int)
	}
	if i = len(m.list); i < maxMissed {
		m.list = append(m.list, Missed{Name: name, Count: 1})
	} else {
		i = m.least()
		delete(m.at, m.list[i].Name)
		m.list[i] = Missed{Name: name, Count: m.list[i].Count + 1, Over: m.list[i].Count}
	}
	m.at[name] = i
}

// least looks at all of them, which takes a microsecond: the handshake around it takes a hundred.
func (m *missed) least() int {
	least := 0
	for i, one := range m.list {
		if one.Count < m.list[least].Count {
			least = i
		}
	}
	return least
}
