package directories

import (
	"errors"
	"fmt"
	"strings"

	"jackdaw/configs"
)

// sqlDialect says where a database's quoted strings, quoted names and comments begin and end, and how a parameter is written.
type sqlDialect struct {
	quotes      string // each stands at both ends, and twice for itself inside
	brackets    bool   // [name]
	backslashes bool   // escape in strings; in Postgres only in those with an E before
	dollars     bool   // $tag$text$tag$
	hash        bool   // # begins a comment, and -- only with a blank behind it
	nested      bool   // a comment may be in a comment
	numbered    bool   // $1 and not ?
}

var sqlDialects = map[string]sqlDialect{
	"postgres": {quotes: `'"`, dollars: true, nested: true, numbered: true},
	"mysql":    {quotes: "'\"`", backslashes: true, hash: true},
	"sqlite":   {quotes: "'\"`", brackets: true},
}

// sqlParameters are what a query may ask for by name.
var sqlParameters = map[string]func(q Query) any{
	"user":    func(q Query) any { return q.User },
	"local":   func(q Query) any { return q.Local },
	"domain":  func(q Query) any { return q.Domain },
	"service": func(q Query) any { return string(q.Service) },
	"sni":     func(q Query) any { return q.SNI },
	"client": func(q Query) any {
		if !q.Client.IsValid() {
			return nil // NULL: an address in a column of addresses cannot be empty
		}
		return q.Client.Unmap().WithZone("").String() // databases know no zones
	},
}

// sqlQuery is a query in the words of its database, and the names of its parameters in their order.
type sqlQuery struct {
	text       string
	parameters []string
}

// arguments are the values of the parameters. They travel beside the query, and are never part of it.
func (s sqlQuery) arguments(q Query) []any {
	values := make([]any, len(s.parameters))
	for i, name := range s.parameters {
		values[i] = sqlParameters[name](q)
	}
	return values
}

// parseSQL puts a database's placeholders in the place of :name. What is quoted or a comment stays as it is, and so do casts such
// as name::text, and :=.
func parseSQL(driver string, query configs.Query) (sqlQuery, error) {
	dialect, ok := sqlDialects[driver]
	if !ok {
		return sqlQuery{}, fmt.Errorf("no driver %q", driver)
	}
	p := sqlParser{sqlDialect: dialect, rest: string(query)}
	for p.rest != "" {
		if err := p.step(); err != nil {
			return sqlQuery{}, fmt.Errorf("query: %w", err)
		}
	}
	return sqlQuery{p.text.String(), p.parameters}, nil
}

type sqlParser struct {
	sqlDialect
	rest       string // what is left to read
	last       byte   // of what was read
	text       strings.Builder
	parameters []string
}

// take copies what is to stay as it is.
func (p *sqlParser) take(n int) {
	p.text.WriteString(p.rest[:n])
	p.last = p.rest[n-1]
	p.rest = p.rest[n:]
}

// step reads one thing, be it a character.
func (p *sqlParser) step() error {
	switch c := p.rest[0]; {
	case strings.IndexByte(p.quotes, c) >= 0:
		return p.quoted(c, p.backslashes && c != '`')
	case (c == 'e' || c == 'E') && p.dollars && strings.HasPrefix(p.rest[1:], "'") && !isWord(p.last):
		p.take(1)
		return p.quoted('\'', true)
	case c == '[' && p.brackets:
		return p.until(1, "]", "a name in brackets")
	case c == '$' && p.dollars && !isWord(p.last):
		return p.dollar()
	case strings.HasPrefix(p.rest, "/*"):
		return p.comment()
	case p.hash && c == '#', p.dashes():
		end := strings.IndexByte(p.rest, '\n') + 1
		if end == 0 {
			end = len(p.rest)
		}
		p.take(end)
	case c == '?' && !p.numbered:
		return errors.New("a ? outside of quotes; parameters have names, such as :user")
	case strings.HasPrefix(p.rest, "::"), strings.HasPrefix(p.rest, ":="):
		p.take(2)
	case c == ':' && isWordStart(p.rest[1:]):
		return p.parameter()
	default:
		p.take(1)
	}
	return nil
}

func (p *sqlParser) dashes() bool {
	if !strings.HasPrefix(p.rest, "--") {
		return false
	}
	return !p.hash || len(p.rest) == 2 || p.rest[2] <= ' '
}

func (p *sqlParser) parameter() error {
	end := 1
	for end < len(p.rest) && isWord(p.rest[end]) {
		end++
	}
	name := p.rest[1:end]
	if _, known := sqlParameters[name]; !known {
		return fmt.Errorf("unknown parameter :%s; valid are :user :local :domain :service :sni :client", name)
	}
	p.parameters = append(p.parameters, name)
	if p.numbered {
		fmt.Fprintf(&p.text, "$%d", len(p.parameters))
	} else {
		p.text.WriteByte('?')
	}
	p.last = '?'
	p.rest = p.rest[end:]
	return nil
}

// quoted copies what stands between two quotation marks. One that is doubled begins the next quotation at once, which is the same.
func (p *sqlParser) quoted(mark byte, backslashes bool) error {
	for i := 1; i < len(p.rest); i++ {
		switch {
		case p.rest[i] == '\\' && backslashes:
			i++
		case p.rest[i] == mark:
			p.take(i + 1)
			return nil
		}
	}
	return fmt.Errorf("the quotation mark %c is not closed", mark)
}

// dollar copies $tag$text$tag$, or what is none: an operator, or a parameter's number, which would be mixed up with ours.
func (p *sqlParser) dollar() error {
	tag := 1
	for tag < len(p.rest) && isWord(p.rest[tag]) {
		tag++
	}
	switch {
	case tag > 1 && !isWordStart(p.rest[1:]):
		return fmt.Errorf("%s outside of quotes; parameters have names, such as :user", p.rest[:tag])
	case tag == len(p.rest) || p.rest[tag] != '$':
		p.take(tag)
		return nil
	}
	return p.until(tag+1, p.rest[:tag+1], "a string between dollar signs")
}

// until copies all up to an end that must come behind so many characters.
func (p *sqlParser) until(begin int, end, what string) error {
	i := strings.Index(p.rest[begin:], end)
	if i < 0 {
		return fmt.Errorf("%s is not closed", what)
	}
	p.take(begin + i + len(end))
	return nil
}

func (p *sqlParser) comment() error {
	for i, depth := 2, 1; i < len(p.rest); i++ {
		switch {
		case strings.HasPrefix(p.rest[i:], "*/"):
			depth--
			i++
		case p.nested && strings.HasPrefix(p.rest[i:], "/*"):
			depth++
			i++
		}
		if depth == 0 {
			p.take(i + 1)
			return nil
		}
	}
	return errors.New("a comment is not closed")
}

func isWordStart(s string) bool { return s != "" && isWord(s[0]) && (s[0] < '0' || s[0] > '9') }

// isWord reports whether c may be part of a name, as any letter beyond ASCII may.
func isWord(c byte) bool {
	return c == '_' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
