// Package freeport finds ports for servers of tests and measurements.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Listen listens on any port of a host, "" being all, that is none of those which systems give to clients: when the listener is closed, the
// port stays free for a server that comes later, or back.
func Listen(host string) (l net.Listener, err error) {
	for range 100 {
		if l, err = net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(12000+rand.IntN(20000)))); err == nil {
			break
		}
	}
	return l, err
}
