package configs

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2/unstable"
)

const manualPage = "../docs/man/jackdaw.toml.5.md"

// TestManual compares jackdaw.toml(5) with the schema, both ways. Every table has a heading, and below one of the tables
// in which a key can stand there is a term for it, "**key** = `example`", with the type, in the words of scalars, and the default.
func TestManual(t *testing.T) {
	page, tables := readManual(t), manualTables(t)
	for heading := range page {
		if strings.Contains(heading, "[") && tables[heading] == nil {
			t.Errorf("%q is no table", heading)
		}
	}
	described := make(map[reflect.Type]map[string]int) // how often, by the struct that has the tag
	for heading, table := range tables {
		terms, ok := page[heading]
		if !ok {
			t.Errorf("no heading %q", heading)
		}
		for _, term := range terms {
			for _, name := range term.names {
				key, ok := table.keys[name]
				if !ok {
					t.Errorf("%s: there is no key %q", heading, name)
					continue
				}
				if described[key.owner] == nil {
					described[key.owner] = make(map[string]int)
				}
				described[key.owner][name]++
			}
			if key, ok := table.keys[term.names[len(term.names)-1]]; ok {
				term.check(t, heading, key)
			}
		}
	}
	for heading, table := range tables {
		for name, key := range table.keys {
			if n := described[key.owner][name]; n != 1 {
				t.Errorf("%s: %s is described %d times", heading, name, n)
			}
		}
	}
}

// manualKey is a key of the schema.
type manualKey struct {
	owner  reflect.Type // the struct with the tag: of an embedded one, where it is declared
	field  reflect.Type // for the names of services: what stands behind them
	secret bool
	values []reflect.Value // in a file that says only what it must
}

// manualTable is a table of the schema.
type manualTable struct{ keys map[string]*manualKey }

// least has every table, and in each what it must have.
const least = `
	[listen]
	imap = ":143"
	imaps = ":993"
	lmtp = "unix:/run/lmtp"
	[tls]
	certificates = "certs"
	[[tls.policy]]
	sni = "a.example"
	[acme]
	names = "a.example"
	http = ":80"
	[[route]]
	to = "store"
	[[backend]]
	name = "store"
	imap = "127.0.0.1:1143"
	lmtp = "unix:/run/cyrus/lmtp"
	[[pool]]
	name = "pool"
	members = "store"
	[directory.file]
	kind = "file"
	path = "users"
	[directory.sql]
	kind = "sql"
	driver = "sqlite"
	dsn = "users.db"
	query = "SELECT NULL AS user"
	[directory.ldap]
	kind = "ldap"
	urls = "ldap://127.0.0.1"
	base = "dc=example"
	[directory.http]
	kind = "http"
	url = "http://127.0.0.1/"
	[directory.mupdate]
	kind = "mupdate"
	server = "127.0.0.1:3905"`

// manualTables lists the tables by the headings that the page must have.
func manualTables(t *testing.T) map[string]*manualTable {
	tables := make(map[string]*manualTable)
	addTable(tables, "", "TOP LEVEL", reflect.ValueOf(parse(t, least)).Elem())
	return tables
}

// addTable adds a table, or what another one of its kind has by default, and the tables in it.
func addTable(tables map[string]*manualTable, path, heading string, v reflect.Value) {
	table := tables[heading]
	if table == nil {
		table = &manualTable{make(map[string]*manualKey)}
		tables[heading] = table
	}
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		tag, secret := strings.CutSuffix(f.Tag.Get("toml"), ",secret")
		switch inner := elem(f.Type); {
		case f.Anonymous:
			addTable(tables, path, heading, value)
		case tag == ",services":
			services := Services()
			if f.Type.Kind() == reflect.Map {
				services = Protocols()
			}
			for _, s := range services {
				table.add(string(s), v.Type(), f.Type, reflect.Value{})
			}
			addAll(tables, path+".SERVICE", "["+path+".SERVICE]", value)
		case tag == "":
		case inner.Kind() == reflect.Struct && scalars[inner].parse == nil && inner != reflect.TypeFor[Networks]() &&
			inner != reflect.TypeFor[Sessions]():
			within, title := strings.TrimPrefix(path+"."+tag, "."), "[%s]"
			switch f.Type.Kind() {
			case reflect.Slice:
				title = "[[%s]]"
			case reflect.Map:
				title = "[%s.NAME]"
			}
			addAll(tables, within, fmt.Sprintf(title, within), value)
		default:
			table.add(tag, v.Type(), f.Type, value)
			if secret {
				table.add(tag+"_file", v.Type(), f.Type, reflect.Value{})
				table.keys[tag+"_file"].secret = true
			}
		}
	}
}

func (table *manualTable) add(name string, owner, field reflect.Type, value reflect.Value) {
	key := table.keys[name]
	if key == nil {
		key = &manualKey{owner: owner, field: field}
		table.keys[name] = key
	}
	if value.IsValid() {
		key.values = append(key.values, value)
	}
}

// addAll adds a table for each struct in v.
func addAll(tables map[string]*manualTable, path, heading string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		addTable(tables, path, heading, v)
	case reflect.Slice:
		for i := range v.Len() {
			addTable(tables, path, heading, v.Index(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			addTable(tables, path, heading, it.Value())
		}
	}
}

func elem(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer:
		return t.Elem()
	}
	return t
}

// manualTerm is a description of one key or several.
type manualTerm struct {
	names   []string
	example string
	text    string
}

var (
	manualTermLine = regexp.MustCompile("^(\\*\\*[a-z0-9_]+\\*\\*(?:, \\*\\*[a-z0-9_]+\\*\\*)*)(?: = `([^`]+)`)?$")
	manualText     = regexp.MustCompile("(?s)^\\*([^*]+)\\*; (?:required|default(?: `([^`]*)`|:))")
)

// otherDefaults are keys whose defaults depend on more than the file, or on other keys, and those that least gives although
// they need not be there.
var otherDefaults = []string{"hostname", "external_login", "to", "http", "exempt"}

// check compares type, default and example with those of a key.
func (term manualTerm) check(t *testing.T, heading string, key *manualKey) {
	name := term.names[len(term.names)-1]
	parts := manualText.FindStringSubmatch(term.text)
	if parts == nil {
		t.Errorf("%s: %s does not begin with *type*; and the default, or that it is required:\n%s", heading, name, term.text)
		return
	}
	if want := typeWords(key); parts[1] != want {
		t.Errorf("%s: %s is a %s, not a %s", heading, name, want, parts[1])
	}
	field := key.field
	if key.secret {
		field = reflect.TypeFor[string]()
	}
	if _, err := decodeValue(field, term.example); err != nil {
		t.Errorf("%s: the example for %s: %v", heading, name, err)
	}
	defaults := slices.CompactFunc(slices.DeleteFunc(slices.Clone(key.values), reflect.Value.IsZero), func(a, b reflect.Value) bool {
		return reflect.DeepEqual(a.Interface(), b.Interface())
	})
	if literal := parts[2]; literal != "" {
		got, err := decodeValue(field, literal)
		if err != nil {
			t.Fatalf("%s: the default of %s: %v", heading, name, err)
		}
		if len(defaults) == 0 {
			defaults = []reflect.Value{reflect.Zero(field)}
		}
		for _, want := range defaults {
			if !reflect.DeepEqual(want.Interface(), got.Interface()) {
				t.Errorf("%s: the default of %s is %v, not %s", heading, name, want, literal)
			}
		}
	} else if len(defaults) == 1 && strings.HasPrefix(term.text[len(parts[1])+2:], "; default") && !slices.Contains(otherDefaults, name) {
		t.Errorf("%s: the default of %s is %v, and the page does not say it as a value", heading, name, defaults[0])
	}
}

// decodeValue reads a value of TOML. What depends on other values is not looked at.
func decodeValue(of reflect.Type, text string) (reflect.Value, error) {
	if text == "" {
		return reflect.Value{}, fmt.Errorf("there is none")
	}
	d := &decoder{file: manualPage, dir: "/etc/jackdaw", partial: true}
	root := d.tree([]byte("value = " + text))
	v := reflect.New(of).Elem()
	switch {
	case root.values["value"] == nil: // d.errs says why
	case of == reflect.TypeFor[[]Listener](), of == reflect.TypeFor[map[Service]Access]():
		d.services(&node{kind: unstable.Table, values: map[string]*node{"imap": root.values["value"]}}, v)
	default:
		d.decode(root.values["value"], v)
	}
	if len(d.errs) > 0 {
		return v, d.errs
	}
	return v, nil
}

// typeWords names a type as the page does.
func typeWords(key *manualKey) string {
	switch t := key.field; {
	case t == reflect.TypeFor[[]Listener]():
		return "address, table, or list of these"
	case t == reflect.TypeFor[map[Service]Access]():
		return "address, list of addresses, or table"
	case strings.HasPrefix(t.Name(), "PerService["):
		return scalarWords(t.Elem()) + ", or table of " + plural(scalarWords(t.Elem())) + " by service"
	case t == reflect.TypeFor[Sessions]():
		return "whole number, or table of whole numbers by service"
	case t == reflect.TypeFor[Networks]():
		return "list of " + plural(scalarWords(t))
	case t.Kind() == reflect.Slice:
		return "list of " + plural(scalarWords(t.Elem()))
	case t.Kind() == reflect.Map && t.Key() == reflect.TypeFor[Service]():
		return "table of " + plural(scalarWords(t.Elem())) + ", by service"
	case t.Kind() == reflect.Map:
		return "table of " + plural(scalarWords(t.Elem()))
	case t.Kind() == reflect.Pointer:
		return scalarWords(t.Elem())
	default:
		return scalarWords(t)
	}
}

// scalarWords is what errors say that a value must be, without the article and the example.
func scalarWords(t reflect.Type) string {
	words, _, _ := strings.Cut(scalars[t].form, " such as")
	return strings.TrimPrefix(strings.TrimPrefix(words, "a "), "an ")
}

func plural(words string) string {
	if strings.HasSuffix(words, "s") {
		return words + "es"
	}
	return words + "s"
}

// readManual returns the terms of the page by their headings, and loads what it has for an example.
func readManual(t *testing.T) map[string][]manualTerm {
	data, err := os.ReadFile(manualPage)
	if err != nil {
		t.Fatal(err)
	}
	page := make(map[string][]manualTerm)
	heading, before := "", ""
	var last *manualTerm
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		switch parts := manualTermLine.FindStringSubmatch(before); {
		case strings.HasPrefix(line, "# "):
			heading, last = line[2:], nil
			page[heading] = nil
		case strings.HasPrefix(line, ": ") && parts != nil:
			names := strings.Split(strings.ReplaceAll(parts[1], "**", ""), ", ")
			page[heading] = append(page[heading], manualTerm{names, parts[2], line[2:]})
			last = &page[heading][len(page[heading])-1]
		case strings.HasPrefix(line, ": "):
			t.Errorf("%s: %q is no term", heading, before)
		case line == "":
			last = nil
		case last != nil:
			last.text += " " + line
		}
		before = line
	}
	return page
}

// TestManualExample loads the example of the page.
func TestManualExample(t *testing.T) {
	data, err := os.ReadFile(manualPage)
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(data), "# EXAMPLE")
	_, example, _ = strings.Cut(example, "```\n")
	example, _, found := strings.Cut(example, "```")
	if !found {
		t.Fatal("no example")
	}
	parse(t, example)
}
