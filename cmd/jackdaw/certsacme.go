package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/tlsstore"
	"jackdaw/tlsstore/orders"
)

// acmeDirectory is where the certificates lie that are ordered; "" if none are.
func acmeDirectory(config *configs.Config) string {
	if len(config.ACME.Names) == 0 {
		return ""
	}
	return orders.Directory(config.ACME)
}

// readOrders tells where the certificates stand that the configuration orders, by what lies in the cache, and what is wrong
// with the cache.
func readOrders(ctx context.Context, config *configs.Config, store *tlsstore.Store) ([]orders.Status, []tlsstore.Problem) {
	if len(config.ACME.Names) == 0 {
		return nil, nil
	}
	list, err := orders.Read(ctx, orders.Options{
		Config: config.ACME, Domains: config.Domains(), Held: heldByFiles(config, store), Log: zap.NewNop(),
	})
	if err != nil {
		return list, []tlsstore.Problem{{File: config.ACME.Cache, Text: err.Error()}}
	}
	return list, nil
}

// orderProblems are those of the cache, and of every order that needs hands.
func orderProblems(ctx context.Context, config *configs.Config, store *tlsstore.Store) []tlsstore.Problem {
	list, problems := readOrders(ctx, config, store)
	for _, s := range list {
		if orderNeedsHands(s, time.Now()) {
			problems = append(problems, tlsstore.Problem{Text: fmt.Sprintf("acme: %s: %s", s.Name, s.Note())})
		}
	}
	return problems
}

// heldByFiles makes the test whether a valid certificate that was not ordered covers a name. It is safe for concurrent use.
func heldByFiles(config *configs.Config, store *tlsstore.Store) func(name string) bool {
	return func(name string) bool {
		choice, now := explainAnywhere(config, store, name), time.Now()
		return choice.Name != "" && slices.ContainsFunc(choice.Certificates, func(c tlsstore.Certificate) bool {
			return c.Source != tlsstore.FromACME && c.NotBefore.Before(now) && now.Before(c.NotAfter)
		})
	}
}

// addOrders adds those that the filter asks for.
func (r *certsReport) addOrders(list []orders.Status) {
	fits, now := nameTest(r.filter.Name), time.Now()
	for _, s := range list {
		if (r.filter.Name == "" || fits(s.Name)) && r.filter.Expiring == 0 && (!r.filter.Problems || orderNeedsHands(s, now)) {
			r.ACME = append(r.ACME, s)
		}
	}
}

// orderNeedsHands tells a failure that an operator should look into from one that there is time to get over.
func orderNeedsHands(s orders.Status, now time.Time) bool {
	return s.Problem != "" || s.Failures > 0 && s.NotAfter.Before(now.Add(soon))
}

func printOrders(out io.Writer, list []orders.Status, now time.Time) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "ACME NAME\tWANTED BY\tEXPIRES\tNEXT ORDER\tNOTE")
	for _, s := range list {
		expires := "-"
		if !s.NotAfter.IsZero() {
			expires = expiry(s.NotAfter, now)
		}
		fmt.Fprintln(table, tableRow(s.Name, cmp.Or(s.By, "-"), expires, nextOrder(s, now), s.Note()))
	}
}

// nextOrder says when a certificate is ordered next, if that is known.
func nextOrder(s orders.Status, now time.Time) string {
	switch {
	case s.Next.IsZero() || s.OnDemand:
		return "-"
	case s.Next.Before(now):
		return "now"
	}
	return s.Next.Format("2006-01-02 15:04")
}
