package configs

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2/unstable"
)

// decoder reads a file into the structs and collects what is wrong with it.
type decoder struct {
	file    string
	dir     string // relative paths begin here
	errs    Errors
	partial bool // the file is not read to its end, so what seems to be missing may be there
	secrets []string
	broken  []string // paths of entries that are there and have errors of their own

	parser   unstable.Parser
	newlines []int // their offsets
}

// checker is implemented by the structs that can be wrong as a whole. check also fills in the defaults that depend on
// other values.
type checker interface {
	check(d *decoder, n *node)
}

func (d *decoder) errorf(n *node, format string, args ...any) {
	d.errs = append(d.errs, Error{d.file, n.line, fmt.Sprintf(format, args...)})
}

// decode reads n into v, which is addressable.
func (d *decoder) decode(n *node, v reflect.Value) {
	if networks, ok := v.Addr().Interface().(*Networks); ok {
		d.networks(n, networks)
		return
	}
	if sessions, ok := v.Addr().Interface().(*Sessions); ok {
		d.sessions(n, sessions)
		return
	}
	if s, ok := scalars[v.Type()]; ok {
		d.scalar(n, s, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem())
	case reflect.Slice:
		d.list(n, v)
	case reflect.Map:
		d.dict(n, v)
	case reflect.Struct:
		d.table(n, v)
	default:
		panic("configs: no way to read a " + v.Type().String())
	}
}

func (d *decoder) scalar(n *node, s scalar, v reflect.Value) {
	if n.kind != s.kind {
		d.errorf(n, "%s must be %s, not %s", n.path, s.form, noun(n))
		return
	}
	// Nothing that is configured needs control characters, and they would travel into greetings, paths and logs.
	text := n.text
	if v.Type() == reflect.TypeFor[Query]() {
		text = strings.NewReplacer("\n", "", "\r", "", "\t", "").Replace(text)
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		d.errorf(n, "%s: %q has a control character in it", n.path, n.text)
		return
	}
	value, err := s.parse(n.text)
	if err != nil {
		d.errorf(n, "%s: %s", n.path, err)
		return
	}
	v.Set(reflect.ValueOf(value))
}

// networks reads one network or a list of them.
func (d *decoder) networks(n *node, networks *Networks) {
	for _, item := range n.list() {
		var one Networks
		d.scalar(item, scalars[reflect.TypeFor[Networks]()], reflect.ValueOf(&one).Elem())
		networks.Prefixes = append(networks.Prefixes, one.Prefixes...)
		networks.Unix = networks.Unix || one.Unix
	}
}

// list reads an array, or a single value in its place. A single table is refused, for it may be meant as one of several.
func (d *decoder) list(n *node, v reflect.Value) {
	_, isScalar := scalars[v.Type().Elem()]
	if !isScalar && n.kind != unstable.Array {
		d.errorf(n, "%s must be a list of tables, not %s; write [[%s]]", n.path, noun(n), n.path)
		return
	}
	items := n.list()
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		d.decode(item, v.Index(i))
	}
}

// dict reads a table whose keys are not known beforehand. Of a table by service one value may stand for all services.
func (d *decoder) dict(n *node, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	byService := v.Type().Key() == reflect.TypeFor[Service]()
	switch {
	case n.kind == unstable.Table:
		for _, key := range n.keys {
			if byService && !Service(key).Known() {
				d.unknownKey(n, key, serviceNames(Services()))
				continue
			}
			d.entry(n.values[key], v, key)
		}
	case byService:
		for _, s := range Services() {
			d.entry(n, v, string(s))
		}
	default:
		d.errorf(n, "%s must be a table, not %s", n.path, noun(n))
	}
}

func (d *decoder) entry(n *node, v reflect.Value, key string) {
	value, before := reflect.New(v.Type().Elem()).Elem(), len(d.errs)
	d.decode(n, value)
	if len(d.errs) == before {
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
	} else {
		d.broken = append(d.broken, n.path)
	}
}

// table reads a table into a struct. Whatever has an address can be written as that address alone. A table that is not
// in the file is read as an empty one, so that it is checked, too.
func (d *decoder) table(n *node, v reflect.Value) {
	s := schemaOf(v)
	if n.kind != unstable.Table && slices.Contains(s.names(), "address") {
		n = &node{kind: unstable.Table, path: n.path, line: n.line, keys: []string{"address"},
			values: map[string]*node{"address": n}, up: n.up}
	}
	if n.kind != unstable.Table {
		d.errorf(n, "%s must be a table, not %s", n.path, noun(n))
		return
	}
	d.unknownKeys(n, s)
	for _, f := range s.fields {
		switch value := n.get(f.name); {
		case f.secret:
			d.secret(n, f)
		case value != nil:
			d.decode(value, f.value)
		case f.value.Kind() == reflect.Struct && scalars[f.value.Type()].parse == nil:
			d.decode(&node{kind: unstable.Table, path: f.name, line: n.line}, f.value)
		}
	}
	if s.services.IsValid() {
		d.services(n, s.services)
	}
	if line := v.FieldByName("Line"); line.IsValid() {
		line.SetInt(int64(n.line))
	}
	if c, ok := v.Addr().Interface().(checker); ok && !d.partial {
		c.check(d, n)
	}
}

// services reads what stands under the names of services. The tables there inherit from the one around them.
func (d *decoder) services(n *node, v reflect.Value) {
	for _, s := range Services() {
		value := n.values[string(s)]
		if value == nil {
			continue
		}
		switch v := v.Addr().Interface().(type) {
		case *[]Listener:
			for _, item := range value.list() {
				item.up = n
				l := newListener(s)
				d.decode(item, reflect.ValueOf(&l).Elem())
				*v = append(*v, l)
			}
		case *map[Service]Access:
			if s.Protocol() != s {
				d.errorf(value, `%s is no way to reach a store; write %s, with tls = "implicit"`, value.path, s.Protocol())
				continue
			}
			value.up = n
			a := Access{User: "{user}", ClientInfo: ClientInfoAuto, Health: Interval(10 * time.Second)}
			d.decode(value, reflect.ValueOf(&a).Elem())
			if *v == nil {
				*v = make(map[Service]Access)
			}
			(*v)[s] = a
		}
	}
}

// schema is what a table may hold.
type schema struct {
	fields   []field
	services reflect.Value // the field that is filled by keys that are names of services
	more     []string      // keys beside the fields': those services, and what their tables inherit
}

type field struct {
	name   string
	value  reflect.Value
	secret bool // can stand in a file that name+"_file" names
}

// schemaOf reads the tags of a struct. The fields of an embedded struct are the outer one's.
func schemaOf(v reflect.Value) (s schema) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch tag := f.Tag.Get("toml"); {
		case f.Anonymous:
			s.fields = append(s.fields, schemaOf(v.Field(i)).fields...)
		case tag == ",services":
			s.services, s.more = v.Field(i), serviceNames(Services())
			if f.Type.Kind() == reflect.Map {
				inherited := schemaOf(reflect.Zero(f.Type.Elem())).names()
				inherited = slices.DeleteFunc(inherited, func(name string) bool { return name == "address" })
				s.more = append(serviceNames(Protocols()), inherited...)
			}
		case tag != "":
			name, secret := strings.CutSuffix(tag, ",secret")
			s.fields = append(s.fields, field{name, v.Field(i), secret})
		}
	}
	return s
}

// names lists every key, in the order of the struct.
func (s schema) names() []string {
	var names []string
	for _, f := range s.fields {
		names = append(names, f.name)
		if f.secret {
			names = append(names, f.name+"_file")
		}
	}
	return append(names, s.more...)
}

func (d *decoder) unknownKeys(n *node, s schema) {
	valid := s.names()
	for _, key := range n.keys {
		// A service that cannot stand here gets a better error when it is read.
		if !slices.Contains(valid, key) && !(s.services.IsValid() && Service(key).Known()) {
			d.unknownKey(n, key, valid)
		}
	}
}

func (d *decoder) unknownKey(n *node, key string, valid []string) {
	where := ""
	if n.path != "" {
		where = " in " + n.title()
	}
	d.errorf(n.values[key], "unknown key %q%s%s", key, where, Suggest(key, valid))
}

// noun names the type of a value, for errors.
func noun(n *node) string {
	switch n.kind {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "true or false"
	case unstable.Integer, unstable.Float:
		return "a number"
	case unstable.Array:
		return "a list"
	case unstable.Table:
		return "a table"
	default:
		return "a date or time"
	}
}

// relative makes a path that begins at the file one that begins where the program runs. It never fails.
func (d *decoder) relative(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	return filepath.Join(d.dir, path), nil
}
