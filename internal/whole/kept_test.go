package whole

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// What could not be written is written when it can be, and its reason is told once.
func TestKeptAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "file")
	core, logs := observer.New(zap.WarnLevel)
	var tries atomic.Int64
	k := Keep(path, zap.New(core))
	k.From(func() any { return tries.Add(1) })
	k.Now()
	k.mu.Lock()
	if k.timer == nil {
		t.Error("nobody tries again")
	}
	k.stop() // 10 seconds are long
	k.after(time.Millisecond)
	k.mu.Unlock()
	k.Now()
	for tries.Load() < 5 {
		time.Sleep(time.Millisecond)
	}
	if n := logs.Len(); n != 1 {
		t.Errorf("the reason is told %d times", n)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	var kept int64
	for kept == 0 {
		time.Sleep(time.Millisecond)
		if err := Keep(path, nil).Recall(&kept); err != nil {
			t.Fatal(err)
		}
	}
	if after := tries.Load(); after != kept {
		t.Errorf("the file has %d, and it was written %d times", kept, after)
	}
}

// At the end what waits is written, unless the file is another process's by then.
func TestKeptAtTheEnd(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	path := filepath.Join(t.TempDir(), "file")
	for _, step := range []struct {
		what string
		do   func(*Kept)
		want string
	}{
		{"at once", func(k *Kept) { k.Now() }, "at once"},
		{"left", func(k *Kept) { k.Later(); k.Leave(); k.Close() }, "at once"},
		{"later", func(k *Kept) { k.Later(); k.Close(); k.Close() }, "later"},
		{"unchanged", func(k *Kept) { k.Close() }, "later"},
	} {
		k := Keep(path, zap.New(core))
		k.From(func() any { return step.what })
		step.do(k)
		if k.timer != nil {
			t.Errorf("%s: something is yet to be done", step.what)
		}
		var got string
		if err := k.Recall(&got); err != nil || got != step.want {
			t.Errorf("%s: the file has %q, %v", step.what, got, err)
		}
	}
	if logs.Len() > 0 {
		t.Errorf("logged is %v", logs.All())
	}
}

// Who has no file keeps nothing, and remembers nothing.
func TestKeptNowhere(t *testing.T) {
	var k *Kept
	k.From(func() any { t.Error("it is asked for"); return nil })
	k.Now()
	k.Later()
	k.Leave()
	k.Close()
	got := "before"
	if err := k.Recall(&got); err != nil || got != "before" {
		t.Errorf("%q, %v", got, err)
	}
	if err := Keep(filepath.Join(t.TempDir(), "none"), nil).Recall(&got); err != nil || got != "before" {
		t.Errorf("of a file that is not there: %q, %v", got, err)
	}
}
