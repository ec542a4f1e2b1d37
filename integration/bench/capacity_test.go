package main

import "testing"

func TestCapacity(t *testing.T) {
	r := &report{Contenders: []string{"jackdaw"}}
	if got := r.capacity(); got != "" {
		t.Errorf("%q of nothing", got)
	}
	for key, value := range map[string]float64{"login-imaps": 250, "hs-resumed": 100, "noop-64": 8, "down-8": 500, "up-8": 1000,
		"idle-8000 used": 5.5, "idle-8000 kernel": 7.3} {
		r.Rows = append(r.Rows, &result{Key: key, Values: map[string][]float64{"jackdaw": {value}}})
	}
	const want = `| jackdaw | 1 processor | 16 processors, 64 GiB * | 100 such machines * |
| --- | ---: | ---: | ---: |
| logins with full handshakes, each second | 4,000 | 64,000 | 6,400,000 |
| resumed handshakes, each second | 10,000 | 160,000 | 16,000,000 |
| small questions and answers, each second | 130,000 | 2,000,000 | 200,000,000 |
| download, GB each second | 2.0 | 32 | 3,200 |
| upload, GB each second | 1.0 | 16 | 1,600 |
| sessions at rest, of 12.8 KiB with the kernel's share |  | 5,200,000 | 520,000,000 |
| - until all of them have come back, s |  | 82 | 82 |

\* Extrapolated: the first column times the number of processors, and memory by the session. Nobody has measured it.
`
	if got := r.capacity(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
