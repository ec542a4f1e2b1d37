package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// maxSecret is longer than any password, and than the address of any database.
const maxSecret = 1024

// secret reads a string that stands in the file or in one of its own. Whichever of the two keys a table has, it overrides
// both keys of the table that it inherits from. No error shows the secret.
func (d *decoder) secret(n *node, f field) {
	value, file := n.values[f.name], n.values[f.name+"_file"]
	switch {
	case value != nil && file != nil:
		d.errorf(file, "%s and %s exclude each other", f.name, f.name+"_file")
	case value != nil && value.kind == unstable.String:
		d.setSecret(value, f, value.text, oneLine)
	case value != nil:
		d.decode(value, f.value) // reports the wrong type
	case file != nil:
		path, before := "", len(d.errs)
		if d.decode(file, reflect.ValueOf(&path).Elem()); len(d.errs) == before {
			d.setSecret(file, f, path, d.readSecret)
		}
	case n.up != nil:
		d.secret(n.up, f)
	}
}

func (d *decoder) setSecret(n *node, f field, from string, read func(string) (string, error)) {
	secret, err := read(from)
	if err != nil {
		d.errorf(n, "%s: %s", n.path, err)
	}
	f.value.SetString(secret)
}

// readSecret reads a file up to the end of its one line. Only regular files are opened: a pipe would let a reload wait.
func (d *decoder) readSecret(path string) (string, error) {
	path, _ = d.relative(path)
	d.secrets = append(d.secrets, path)
	if info, err := os.Stat(path); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+3)) // a line end, and a byte too many
	if err != nil {
		return "", err
	}
	secret, err := oneLine(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return secret, nil
}

// oneLine returns a secret that can travel to a store.
func oneLine(secret string) (string, error) {
	switch {
	case secret == "":
		return "", errors.New("the secret is empty")
	case len(secret) > maxSecret:
		return "", fmt.Errorf("the secret is longer than %d bytes", maxSecret)
	case strings.ContainsFunc(secret, unicode.IsControl) || !utf8.ValidString(secret):
		return "", errors.New("the secret must be one line of UTF-8 without control characters")
	}
	return secret, nil
}
