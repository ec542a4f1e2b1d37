package main

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"

	"jackdaw/configs"
	"jackdaw/tlsstore"
	"jackdaw/tlsstore/orders"
)

// certificates are what clients are shown, and the orders for what there is not yet.
type certificates struct {
	*tlsstore.Store
	orders *orders.Manager // nil: nothing is ordered
}

// openCertificates makes them, or returns the present ones where the configuration changes nothing. The only error is that
// an address for challenges cannot be listened on.
func (d *daemon) openCertificates(config *configs.Config) (*certificates, error) {
	if d.config != nil && sameCertificates(d.config, config) {
		return d.certs, nil
	}
	dir := acmeDirectory(config)
	if dir != "" {
		_ = os.MkdirAll(dir, 0o700) // where that fails, the store says so, and each order
	}
	c := &certificates{Store: tlsstore.Open(tlsstore.Options{
		TLS: config.TLS, Hostname: config.Hostname, ACME: dir, Tickets: d.tickets, Log: d.log,
	})}
	if dir == "" {
		return c, nil
	}
	var former *orders.Manager
	if d.certs != nil {
		former = d.certs.orders
	}
	var err error
	c.orders, err = orders.Open(orders.Options{
		Config: config.ACME, Domains: config.Domains(), Known: d.knowsDomain(config.ACME.Lookup), Held: heldByFiles(config, c.Store),
		Sockets: d.sockets, Log: d.log,
	}, former)
	if err != nil {
		c.Store.Close()
		return nil, err
	}
	return c, nil
}

// knowsDomain asks the directory of that name which domains names may be ordered for; nil where there is none.
func (d *daemon) knowsDomain(directory string) func(ctx context.Context, domain, sni string) (bool, error) {
	if directory == "" {
		return nil
	}
	return func(ctx context.Context, domain, sni string) (bool, error) {
		router := d.placer.Load()
		if router == nil {
			return false, errors.New("the directories are not open yet")
		}
		return router.KnowsDomain(ctx, directory, domain, sni)
	}
}

func sameCertificates(a, b *configs.Config) bool {
	return a.Hostname == b.Hostname && reflect.DeepEqual(a.TLS, b.TLS) && reflect.DeepEqual(a.ACME, b.ACME) &&
		slices.Equal(a.Domains(), b.Domains())
}

// ask has a name ordered that a client asks for in vain, if the configuration wants that.
func (c *certificates) ask(name string) {
	if c.orders != nil {
		c.orders.Ask(name)
	}
}

// look has the orders notice what an operator has changed by hand.
func (c *certificates) look() {
	if c.orders != nil {
		c.orders.Look()
	}
}

// status tells where the orders stand.
func (c *certificates) status() []orders.Status {
	if c.orders == nil {
		return nil
	}
	return c.orders.Status()
}

// Close ends the orders, and the watching of the files.
func (c *certificates) Close() {
	if c.orders != nil {
		c.orders.Close()
	}
	c.Store.Close()
}
