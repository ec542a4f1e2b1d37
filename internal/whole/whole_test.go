package whole

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// A file is what was written last to its end, for its owner alone, and nothing is left of what was not.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	broken := errors.New("the text has no end")
	for _, step := range []struct {
		what  string
		put   func(from, to string) error
		write func(io.Writer) error
		err   error
		want  string
	}{
		{"the first", os.Link, text("one"), nil, "one"},
		{"a link overwrites nothing", os.Link, text("two"), fs.ErrExist, "one"},
		{"a rename does", os.Rename, text("three"), nil, "three"},
		{"half of it", os.Rename, func(w io.Writer) error { return errors.Join(text("fo")(w), broken) }, broken, "three"},
	} {
		if err := File(path, step.put, step.write); !errors.Is(err, step.err) {
			t.Errorf("%s: %v, want %v", step.what, err, step.err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Errorf("%s: the file has %q, %v; want %q", step.what, got, err, step.want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", step.what, info.Mode(), err)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("%s: there is more than the file: %v, %v", step.what, all, err)
		}
	}
	if err := File(filepath.Join(dir, "none", "file"), os.Rename, text("one")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is no directory: %v", err)
	}
}

// The file is complete before it has its name, and hidden until then.
func TestHidden(t *testing.T) {
	err := File(filepath.Join(t.TempDir(), "file"), func(from, to string) error {
		if got, err := os.ReadFile(from); err != nil || string(got) != "one" || filepath.Base(from)[0] != '.' || filepath.Dir(from) != filepath.Dir(to) {
			t.Errorf("%s has %q, %v", from, got, err)
		}
		return os.Rename(from, to)
	}, text("one"))
	if err != nil {
		t.Error(err)
	}
}
