package whole

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"jackdaw/internal/smallroom"
)

// On a full disk a file stays what it was, the error names it, and nothing takes room that was not there before. When there is room
// again, the next one is written.
func TestFullDisk(t *testing.T) {
	dir := smallroom.Enter(t)
	if dir == "" {
		return
	}
	path := filepath.Join(dir, "file")
	if err := File(path, os.Rename, text("old")); err != nil {
		t.Fatal(err)
	}
	free := smallroom.Fill(t, dir)
	large := strings.Repeat("new", 10<<10)
	for range 3 {
		err := File(path, os.Rename, text(large))
		if !errors.Is(err, syscall.ENOSPC) || err.Error() != "writing "+path+": no space left on device" {
			t.Errorf("on a full disk: %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
			t.Errorf("the file has %q, %v", got, err)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
			t.Errorf("there are %v, %v", all, err)
		}
	}
	free()
	if err := File(path, os.Rename, text(large)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != large {
		t.Errorf("the file has %d bytes, %v", len(got), err)
	}
}
