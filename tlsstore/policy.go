package tlsstore

import (
	"cmp"
	"slices"
	"strings"

	"jackdaw/configs"
)

// under returns what is left of a choice under the policy of its name, or the general terms where there is none, on a
// listener of that service.
func (c choice) under(policy *configs.TLSPolicy, general configs.Terms, service configs.Service) choice {
	if !policy.Serves(service) {
		return choice{how: Refused}
	}
	if policy.Or(general).KeyType == configs.KeyTypeRSA { // the index prefers ECDSA already
		c.pairs = slices.Clone(c.pairs)
		slices.SortStableFunc(c.pairs, func(a, b *pair) int { return cmp.Compare(c.rankRSA(a), c.rankRSA(b)) })
	}
	return c
}

// rankRSA puts RSA first, among the pairs that have the name as well as among those behind them that have a wildcard for it.
func (c choice) rankRSA(p *pair) int {
	rank := 0
	if !slices.Contains(p.names, c.name) {
		rank += 2
	}
	if !strings.HasPrefix(p.kind.keyType, "RSA") {
		rank++
	}
	return rank
}
