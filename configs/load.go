package configs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a configuration file.
type Error struct {
	File    string
	Line    int
	Message string
}

func (e Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message) }

// Errors holds everything that is wrong with a configuration file, by line.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads a configuration file. What is wrong with its contents is returned as Errors.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads the contents of a configuration file. Errors name the file, and relative paths in it begin where it lies.
func Parse(file string, data []byte) (*Config, error) {
	d := &decoder{file: file, dir: filepath.Dir(file)}
	root := d.tree(data)
	config := defaults()
	d.decode(root, reflect.ValueOf(config).Elem())
	if len(d.errs) > 0 {
		return nil, d.sorted()
	}
	config.SecretFiles = d.secrets
	return config, nil
}

// sorted returns the errors in the order of the file. What several listeners or services inherit was read once for each
// of them, so that an error in it was found several times.
func (d *decoder) sorted() Errors {
	slices.SortFunc(d.errs, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(d.errs)
}
