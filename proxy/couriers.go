package proxy

import (
	"slices"
	"sync"

	"jackdaw/backends"
)

// maxKept bounds the connections that a session keeps.
const maxKept = 10

// couriers are the connections to stores that an LMTP session keeps from one message for the next.
type couriers struct {
	kept    []keptCourier // the one used last comes last
	leaving sync.WaitGroup
}

type keptCourier struct {
	service *backends.Service
	courier *backends.Courier
}

// take returns the connection to a store, or nil if there is none.
func (c *couriers) take(service *backends.Service) *backends.Courier {
	i := slices.IndexFunc(c.kept, func(k keptCourier) bool { return k.service == service })
	if i < 0 {
		return nil
	}
	courier := c.kept[i].courier
	c.kept = slices.Delete(c.kept, i, i+1)
	return courier
}

// put keeps a connection. If that is one too many, the one goes that was not used for longest.
func (c *couriers) put(service *backends.Service, courier *backends.Courier) {
	c.kept = append(c.kept, keptCourier{service, courier})
	if len(c.kept) > maxKept {
		c.leaving.Go(c.kept[0].courier.Leave)
		c.kept = slices.Delete(c.kept, 0, 1)
	}
}

// leave says goodbye to all stores.
func (c *couriers) leave() {
	for _, k := range c.kept {
		c.leaving.Go(k.courier.Leave)
	}
	c.kept = nil
}
