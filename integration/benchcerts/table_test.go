package main

import (
	"math"
	"strings"
	"testing"
)

// TestPrint: medians, the median of ratios, which is another number, and what nobody or one alone has.
func TestPrint(t *testing.T) {
	r := results{
		"haproxy": {{startTime: 10, renewTime: math.Inf(1)}, {startTime: 20, renewTime: math.Inf(1)}, nil},
		"jackdaw": {{startTime: 5, renewTime: 0.1}, {startTime: 2, renewTime: 0.2}, {startTime: 3, renewTime: 0.6}},
	}
	var b strings.Builder
	r.print(&b, 1000, contenders[:2])
	const want = `
| 1000 certificates                    |   haproxy |   jackdaw | / haproxy |
| ------------------------------------ |      ---: |      ---: |      ---: |
| start to first handshake, s          |      15.0 |      3.00 |     0.300 |
| new file to new certificate, s       |     never |     0.200 |           |

`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got%swant%s", got, want)
	}
}
