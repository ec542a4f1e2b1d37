package tlsstore

import (
	"runtime/debug"
	"sync"
)

// thrift has garbage collected more often while there is much of it: at the start, and while private keys are verified.
var thrift frugal

type frugal struct {
	mu     sync.Mutex
	wanted int // by how many
	former int
}

func (f *frugal) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wanted++; f.wanted == 1 {
		f.former = debug.SetGCPercent(50)
	}
}

func (f *frugal) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wanted--; f.wanted == 0 {
		debug.SetGCPercent(f.former)
	}
}
