package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestQuotedExamples: each file in examples can be loaded, and stands as it is on a page that names it.
func TestQuotedExamples(t *testing.T) {
	quotes := make(map[string]bool)
	for _, page := range files(t, "../docs/from-*.md") {
		text := read(t, page)
		for _, link := range regexp.MustCompile(`\(\.\./configs/(examples/[a-z-]+\.toml)\)`).FindAllStringSubmatch(text, -1) {
			quotes[link[1]] = true
			if !strings.Contains(text, "```toml\n"+read(t, link[1])+"```\n") {
				t.Errorf("%s does not quote %s as it is", page, link[1])
			}
		}
	}
	for _, file := range files(t, "examples/*.toml") {
		dir := t.TempDir()
		config := withSecrets(t, dir, read(t, file))
		if _, err := Parse(filepath.Join(dir, filepath.Base(file)), []byte(config)); err != nil {
			t.Error(err)
		}
		if !quotes[file] {
			t.Errorf("no page quotes %s", file)
		}
	}
}

// TestFragments: each block of TOML in the documents says what the schema knows, were it no whole file.
func TestFragments(t *testing.T) {
	for _, page := range append(files(t, "../docs/*.md"), "../README.md", "../SECURITY.md") {
		for i, block := range regexp.MustCompile("(?ms)^ *```toml\n(.*?)^ *```$").FindAllStringSubmatch(read(t, page), -1) {
			dir := t.TempDir()
			d := &decoder{file: page, dir: dir}
			root := d.tree([]byte(withSecrets(t, dir, block[1])))
			d.partial = true // what the fragment leaves out is not missed
			d.decode(root, reflect.ValueOf(defaults()).Elem())
			if len(d.errs) > 0 {
				t.Errorf("block %d: %v", i+1, d.sorted())
			}
		}
	}
}

// withSecrets makes the files that keys with "_file" name, in a directory, and has the keys name those.
func withSecrets(t *testing.T, dir, config string) string {
	return regexp.MustCompile(`(_file\s*= )"([^"]+)"`).ReplaceAllStringFunc(config, func(s string) string {
		parts := strings.SplitN(s, `"`, 3)
		name := filepath.Base(parts[1])
		write(t, filepath.Join(dir, name), "secret\n")
		return parts[0] + `"` + name + `"`
	})
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
