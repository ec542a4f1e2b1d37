package tlsstore

import (
	"runtime"
	"sync"
)

// scanner reads files.
type scanner struct {
	parser *parser
	unseal bool // parse private keys, too
}

func newScanner(unseal bool) *scanner {
	return &scanner{
		parser: &parser{authorities: newAuthorities(), kinds: &kinds{known: make(map[string]*kind)}},
		unseal: unseal,
	}
}

// each looks at the files that walk hands out, on all cores while it walks, and returns what has changed.
func (s *scanner) each(walk func(found func(*file))) []*reading {
	found := make(chan *file, 256)
	changed := make([][]*reading, runtime.GOMAXPROCS(0))
	wait := start(len(changed), func(i int) {
		for f := range found {
			if r := s.look(f); r != nil {
				changed[i] = append(changed[i], r)
			}
		}
	})
	walk(func(f *file) { found <- f })
	close(found)
	wait()
	var all []*reading
	for _, some := range changed {
		all = append(all, some...)
	}
	return all
}

// start calls do in n goroutines, and returns a function that waits for them.
func start(n int, do func(i int)) (wait func()) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	return wg.Wait
}
