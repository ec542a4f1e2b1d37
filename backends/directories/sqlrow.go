package directories

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"jackdaw/configs"
)

// maxStoredPassword bounds a stored password in octets.
const maxStoredPassword = 1024

// sqlRow is what a database says of a user: values by their column's name, nil for NULL.
type sqlRow map[string]any

var errSeveralRows = errors.New("the query has several rows for one user, and which one counts nobody knows")

// readRow reads the only row. ErrNotFound if there is none.
func readRow(rows *sql.Rows) (sqlRow, error) {
	columns, err := rows.Columns()
	if err == nil {
		columns, err = knownColumns(columns)
	}
	if err != nil {
		return nil, err
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, err
		}
		return nil, ErrNotFound
	}
	values, targets := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	if err := rows.Scan(targets...); err != nil {
		return nil, err
	}
	if rows.Next() {
		return nil, errSeveralRows
	}
	row := make(sqlRow, len(columns))
	for i, column := range columns {
		row[column] = values[i]
	}
	return row, rows.Err()
}

// knownColumns returns the names by which a row is read.
func knownColumns(columns []string) ([]string, error) {
	known := map[string]string{"backend": "backend", "host": "backend", "user": "user", "password": "password"}
	for _, service := range configs.Protocols() {
		known[string(service)] = string(service)
	}
	names, seen := make([]string, len(columns)), make(map[string]bool)
	var unknown []string
	for i, column := range columns {
		name, ok := known[strings.ToLower(column)]
		if !ok {
			unknown = append(unknown, strconv.Quote(column))
		} else if seen[name] {
			return nil, fmt.Errorf("the query has two columns for %s", name)
		}
		names[i], seen[name] = name, true
	}
	if unknown != nil {
		return nil, fmt.Errorf("the query has columns of no use: %s; name them backend, user, password, or after a service: "+
			"imap, pop3, submission, sieve, lmtp", strings.Join(unknown, ", "))
	}
	return names, nil
}

// answer places the user, and says whether he may use the service.
func (r sqlRow) answer(service configs.Service) (a Answer, err error) {
	if a.Backend, err = r.text("backend", maxName); err != nil {
		return Answer{}, err
	}
	if a.User, err = r.text("user", maxName); err != nil {
		return Answer{}, err
	}
	column := string(service.Protocol())
	value, has := r[column]
	if !has {
		return a, nil
	}
	permitted, known := permission(value)
	if !known {
		return Answer{}, fmt.Errorf("the column %s says neither yes nor no", column)
	}
	if !permitted {
		a.Refuse = column + " is not permitted in the database"
	}
	return a, nil
}

// stored is what is stored of the password.
func (r sqlRow) stored() (string, error) {
	if _, has := r["password"]; !has {
		return "", errors.New("the query has no column password, and so nobody can be verified")
	}
	return r.text("password", maxStoredPassword)
}

// text returns a name, a number or a stored password; "" for NULL and where there is no such column.
func (r sqlRow) text(column string, longest int) (string, error) {
	var text string
	switch value := r[column].(type) {
	case nil:
	case string:
		text = value
	case []byte:
		text = string(value)
	case int64:
		text = strconv.FormatInt(value, 10)
	default:
		return "", fmt.Errorf("the column %s has no text", column)
	}
	switch {
	case len(text) > longest:
		return "", fmt.Errorf("the column %s has more than %d bytes", column, longest)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return "", fmt.Errorf("the column %s has control characters, or is not in UTF-8", column)
	}
	return text, nil
}

// words are permissions in words, as databases without a boolean have them.
var words = map[string]bool{
	"1": true, "y": true, "yes": true, "t": true, "true": true, "on": true,
	"": false, "0": false, "n": false, "no": false, "f": false, "false": false, "off": false,
	"\x00": false, "\x01": true, // BIT(1)
}

// permission understands what databases have for yes and no. NULL is no.
func permission(value any) (permitted, known bool) {
	switch value := value.(type) {
	case nil:
		return false, true
	case bool:
		return value, true
	case int64:
		return value != 0, true
	case float64:
		return value != 0, true
	case []byte:
		return permission(string(value))
	case string:
		permitted, known = words[strings.ToLower(strings.TrimSpace(value))]
		return permitted, known
	}
	return false, false
}
