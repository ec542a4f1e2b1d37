package whole

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A file is read when it is new, or may be.
func TestReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	long, longer := time.Now().Add(-time.Hour), time.Now().Add(-2*time.Hour)
	write := func(text string, when time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	var r Reader
	reads := func(what, want string, changes bool) {
		t.Helper()
		if got, changed, err := r.Read(path); err != nil || changed && string(got) != want || changed != changes {
			t.Errorf("%s: %q, %v, %v; want %q, %v", what, got, changed, err, want, changes)
		}
	}
	write("one", long)
	reads("at first", "one", true)
	reads("as it was", "", false)
	write("one", long.Add(time.Minute))
	reads("written again", "", false)
	write("two", longer)
	reads("another time", "two", true)
	write("three", longer)
	reads("another size", "three", true)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if _, changed, err := r.Read(path); !os.IsNotExist(err) || !changed {
		t.Errorf("no file: %v, %v", changed, err)
	}
	if err := os.Rename(path+".old", path); err != nil {
		t.Fatal(err)
	}
	reads("back again", "three", true)
	reads("as it was then", "", false)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write("seven", longer)
	reads("another file", "seven", true)
	write("eight", time.Now())
	reads("just now", "eight", true)
	reads("in the same moment", "", false)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write("night", info.ModTime())
	reads("in the same moment, but different", "night", true)
	write("", long)
	reads("empty", "", true)
	reads("empty as before", "", false)
}

// A pipe would have its reader wait for who writes.
func TestReaderPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	if _, _, err := new(Reader).Read(path); err == nil || !strings.HasSuffix(err.Error(), "pipe is no regular file") {
		t.Error(err)
	}
}
