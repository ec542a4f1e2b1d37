package proxy

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"time"
)

// subnet is what counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one customer has to himself. In eight
// octets both have room: IPv4 is where no IPv6 address is given out but ::1.
type subnet uint64

// subnetOf returns the subnet of an address; that of a unix socket is 0.
func subnetOf(a netip.Addr) subnet {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return subnet(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return subnet(binary.BigEndian.Uint64(b[:8]))
}

// wide is the network around it that one owner may have to himself: the /24 of IPv4, the /48 of IPv6.
func (n subnet) wide() subnet {
	if n>>32 == 0 {
		return n &^ 0xff
	}
	return n &^ 0xffff
}

// recent remembers what is not long ago, in bounded memory: for at least a time, and at most twice as long, unless it is too much.
type recent[K comparable, V any] struct {
	young, old map[K]V
	since      time.Time // when young began
}

// mostRecent is how many keys make a generation.
const mostRecent = 1 << 15

func (r *recent[K, V]) get(key K) (V, bool) {
	v, ok := r.young[key]
	if !ok {
		v, ok = r.old[key]
	}
	return v, ok
}

// all ranges over what is remembered.
func (r *recent[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for k, v := range r.young {
			if !yield(k, v) {
				return
			}
		}
		for k, v := range r.old {
			if _, again := r.young[k]; !again && !yield(k, v) {
				return
			}
		}
	}
}

func (r *recent[K, V]) put(key K, v V, now time.Time, keep time.Duration) {
	r.age(now, keep)
	r.young[key] = v
}

// age forgets what is long ago.
func (r *recent[K, V]) age(now time.Time, keep time.Duration) {
	age := now.Sub(r.since)
	switch {
	case r.young == nil || age > 2*keep:
		r.young, r.old, r.since = make(map[K]V), nil, now
	case age > keep || len(r.young) >= mostRecent:
		r.young, r.old, r.since = make(map[K]V), r.young, now
	}
}
