package configs

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Pool is a [[pool]]: backends that share storage. A user is on one of them at a time.
type Pool struct {
	Name    string   `toml:"name"`
	Members []string `toml:"members"`
	// Hash is what of a user's name decides about the member: HashUser (the default), HashLocal or HashDomain.
	Hash PoolHash `toml:"hash"`
	// Weights maps a member to its share; default 1 for each.
	Weights map[string]int `toml:"weights"`
	// Sticky is how long a user stays on a member after the last session or delivery; default 15m.
	Sticky time.Duration `toml:"sticky"`
	// OnFailure tells what becomes of users whose member is dead; default OnFailureNext.
	OnFailure OnFailure `toml:"on_failure"`

	Line int // where it stands in the file
}

// PoolHash is a part of a user's name.
type PoolHash string

// The parts.
const (
	HashUser   PoolHash = "user"
	HashLocal  PoolHash = "local"
	HashDomain PoolHash = "domain"
)

// OnFailure is what becomes of a dead member's users.
type OnFailure string

// What there is: they go to the next member by hash, or wait for theirs.
const (
	OnFailureNext OnFailure = "next"
	OnFailureFail OnFailure = "fail"
)

func parsePoolHash(s string) (any, error) {
	return PoolHash(s), oneOf("part of a name", s, []string{string(HashUser), string(HashLocal), string(HashDomain)})
}

func parseOnFailure(s string) (any, error) {
	return OnFailure(s), oneOf("way", s, []string{string(OnFailureNext), string(OnFailureFail)})
}

func (p *Pool) check(d *decoder, n *node) {
	if p.Name == "" {
		d.errorf(n, "a pool needs a name")
	}
	if len(n.get("members").list()) == 0 {
		d.errorf(n, "pool %q needs members, such as members = [\"store1\", \"store2\"]", p.Name)
	}
	for i, item := range n.get("members").list() {
		if slices.Contains(p.Members[:i], p.Members[i]) {
			d.errorf(item, "pool %q has %q twice", p.Name, p.Members[i])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Weights)) {
		value := n.get("weights").at(name)
		switch {
		case !slices.Contains(p.Members, name):
			d.errorf(value, "weights: pool %q has no member %q%s", p.Name, name, Suggest(name, p.Members))
		case p.Weights[name] < 1:
			d.errorf(value, "weights: the weight of %q must be at least 1", name)
		}
	}
	if n.get("hash") == nil {
		p.Hash = HashUser
	}
	if n.get("on_failure") == nil {
		p.OnFailure = OnFailureNext
	}
	if n.get("sticky") == nil {
		p.Sticky = 15 * time.Minute
	}
	if p.Sticky < 0 {
		d.errorf(n.at("sticky"), "sticky cannot be shorter than 0")
	}
}

// Pool returns the pool of a name.
func (c *Config) Pool(name string) (*Pool, bool) {
	i := slices.IndexFunc(c.Pools, func(p Pool) bool { return p.Name == name })
	if i < 0 {
		return nil, false
	}
	return &c.Pools[i], true
}

// checkPools looks for the members, and for names that mean two things.
func (c *Config) checkPools(d *decoder, n *node) {
	for i, p := range c.Pools {
		n := n.get("pool").list()[i]
		if _, ok := c.Backend(p.Name); ok {
			d.errorf(n.at("name"), "%q is a backend already", p.Name)
		}
		if other, _ := c.Pool(p.Name); other.Line != p.Line {
			d.errorf(n.at("name"), "pool %q is already given in line %d", p.Name, other.Line)
		}
		for i, item := range n.get("members").list() {
			backend, ok := c.Backend(p.Members[i])
			if !ok || strings.HasPrefix(backend.Name, "*") {
				d.errorf(item, "no backend %q%s", p.Members[i], Suggest(p.Members[i], c.backendNames()))
			}
		}
	}
}

func (c *Config) backendNames() []string {
	var names []string
	for _, b := range c.Backends {
		names = append(names, b.Name)
	}
	return names
}
