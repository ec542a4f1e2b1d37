package configs

import (
	"cmp"
	"errors"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2/unstable"
)

// node is a value of the file, with the line where it stands.
type node struct {
	kind   unstable.Kind // a scalar's, Array, or Table for tables of every notation
	path   string        // what errors call it: "tls.certificates"
	line   int
	text   string           // of a scalar
	items  []*node          // of an array
	keys   []string         // of a table, in the order of the file
	values map[string]*node // of a table
	origin origin
	up     *node // a table with the values for keys that are not in this one
}

// origin is how a table or an array came to be, which decides what may still be added to it.
type origin int

const (
	closed   origin = iota // a value, complete where it ends
	dotted                 // by a dotted key; further dotted keys and headers below it may follow
	implied                // by a header for a table below it; its own header may follow
	headed                 // by its own header; headers below it may follow
	repeated               // an array of tables; further tables may follow
)

// get returns the value of a key, its own or an inherited one, or nil.
func (n *node) get(key string) *node {
	if value := n.values[key]; value != nil || n.up == nil {
		return value
	}
	return n.up.get(key)
}

// at returns the node that an error about key is reported at: the value, or the table that lacks it.
func (n *node) at(key string) *node {
	if value := n.get(key); value != nil {
		return value
	}
	return n
}

// secret returns the value of a key for a secret, or of the key for its file, or nil.
func (n *node) secret(key string) *node { return cmp.Or(n.get(key), n.get(key+"_file")) }

// list returns the elements of an array; a single value stands for an array of one.
func (n *node) list() []*node {
	switch {
	case n == nil:
		return nil
	case n.kind == unstable.Array:
		return n.items
	}
	return []*node{n}
}

// title is what errors call a table: its header.
func (n *node) title() string {
	if n.origin == repeated {
		return "[[" + n.path + "]]"
	}
	return "[" + n.path + "]"
}

// tree reads a file to a tree. The library's own decoder stops at the first wrong type and knows one type per key, but
// its parser tells all that we need: kinds and positions.
func (d *decoder) tree(data []byte) *node {
	for i, b := range data {
		if b == '\n' {
			d.newlines = append(d.newlines, i)
		}
	}
	root := &node{kind: unstable.Table, line: 1}
	table := root
	d.parser.Reset(data)
	for d.parser.NextExpression() {
		switch e := d.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.header(root, e)
		case unstable.KeyValue:
			d.keyValue(table, e)
		}
	}
	if err := d.parser.Error(); err != nil {
		d.syntax(err)
	}
	return root
}

// syntax reports the error that ended reading. What the rest of the file would have said is unknown, so nothing is
// checked that depends on more than one value.
func (d *decoder) syntax(err error) {
	d.partial = true
	where := &node{line: 1}
	if e := (*unstable.ParserError)(nil); errors.As(err, &e) {
		where.line = d.line(d.parser.Range(e.Highlight))
	}
	d.errorf(where, "%s", err)
}

// header returns the table that a [header] or [[header]] begins.
func (d *decoder) header(root *node, e *unstable.Node) *node {
	keys := keyParts(e)
	t := root
	for _, key := range keys[:len(keys)-1] {
		t = d.descend(t, key, implied)
	}
	key := keys[len(keys)-1]
	n := t.values[string(key.Data)]
	switch {
	case n == nil && e.Kind == unstable.Table:
		return t.add(key, &node{kind: unstable.Table, line: d.line(key.Raw), origin: headed})
	case n == nil:
		n = t.add(key, &node{kind: unstable.Array, line: d.line(key.Raw), origin: repeated})
	case n.origin == implied && e.Kind == unstable.Table:
		n.line, n.origin = d.line(key.Raw), headed
		return n
	case n.origin != repeated || e.Kind == unstable.Table:
		return d.again(n, key)
	}
	n.items = append(n.items, &node{kind: unstable.Table, path: n.path, line: d.line(key.Raw), origin: repeated})
	return n.items[len(n.items)-1]
}

// keyValue adds a key and its value to a table.
func (d *decoder) keyValue(t *node, e *unstable.Node) {
	keys := keyParts(e)
	for _, key := range keys[:len(keys)-1] {
		t = d.descend(t, key, dotted)
	}
	key := keys[len(keys)-1]
	if n := t.values[string(key.Data)]; n != nil {
		d.again(n, key)
		return
	}
	n := t.add(key, &node{})
	d.value(n, e.Value(), d.line(key.Raw))
}

// value fills n. An array has no position in the library's tree, so line is that of its key or of what it stands in.
func (d *decoder) value(n *node, value *unstable.Node, line int) {
	n.kind, n.line = value.Kind, line
	switch value.Kind {
	case unstable.Array:
		for it := value.Children(); it.Next(); {
			item := &node{path: n.path}
			n.items = append(n.items, item)
			d.value(item, it.Node(), line)
		}
	case unstable.InlineTable:
		n.kind, n.line = unstable.Table, d.line(value.Raw)
		for it := value.Children(); it.Next(); {
			d.keyValue(n, it.Node())
		}
	default:
		n.text, n.line = string(value.Data), d.line(value.Raw)
	}
}

// descend returns the table at a key that is not the last one of a header or of a dotted key, and makes it if need be.
func (d *decoder) descend(t *node, key *unstable.Node, how origin) *node {
	n := t.values[string(key.Data)]
	switch {
	case n == nil:
		return t.add(key, &node{kind: unstable.Table, line: d.line(key.Raw), origin: how})
	case n.origin == repeated && how == implied:
		return n.items[len(n.items)-1]
	case n.origin == closed, n.origin != dotted && how == dotted:
		return d.again(n, key)
	}
	return n
}

// again reports a key that is given a second time, and returns the table where reading goes on.
func (d *decoder) again(n *node, key *unstable.Node) *node {
	d.errorf(&node{line: d.line(key.Raw)}, "%s is already given in line %d", n.path, n.line)
	if n.kind != unstable.Table {
		n = &node{kind: unstable.Table, path: n.path}
	}
	return n
}

func (n *node) add(key *unstable.Node, value *node) *node {
	name := string(key.Data)
	value.path = quoted(name)
	if n.path != "" {
		value.path = n.path + "." + value.path
	}
	if n.values == nil {
		n.values = make(map[string]*node)
	}
	n.keys = append(n.keys, name)
	n.values[name] = value
	return value
}

// quoted writes a key as the file must: in quotes where it is more than letters, digits, "-" and "_".
func quoted(key string) string {
	for _, r := range key {
		if !isBare(r) {
			return strconv.Quote(key)
		}
	}
	return key
}

func isBare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

func keyParts(e *unstable.Node) []*unstable.Node {
	var parts []*unstable.Node
	for it := e.Key(); it.Next(); {
		parts = append(parts, it.Node())
	}
	return parts
}

// line counts lines from 1. The parser can tell them, too, but reads the file from its beginning each time.
func (d *decoder) line(at unstable.Range) int {
	before, _ := slices.BinarySearch(d.newlines, int(at.Offset))
	return before + 1
}
