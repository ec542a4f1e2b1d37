package directories

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"jackdaw/configs"
)

func TestParseSQL(t *testing.T) {
	for _, tt := range []struct{ driver, query, want, parameters string }{
		{"postgres", "SELECT :user", "SELECT $1", "user"},
		{"mysql", "SELECT :user", "SELECT ?", "user"},
		{"sqlite", "SELECT :user", "SELECT ?", "user"},
		{"postgres", "x=:user AND y=:user||:domain", "x=$1 AND y=$2||$3", "user user domain"},
		{"mysql", "(:local,:domain,:service,:sni,:client)", "(?,?,?,?,?)", "local domain service sni client"},

		{"postgres", "':user' \":user\" :user", "':user' \":user\" $1", "user"},
		{"mysql", "':user' \":user\" `:user` :user", "':user' \":user\" `:user` ?", "user"},
		{"sqlite", "':user' \":user\" `:user` [:user] :user", "':user' \":user\" `:user` [:user] ?", "user"},
		{"postgres", "'it''s :user' :user", "'it''s :user' $1", "user"},
		{"postgres", `'\' :user '`, `'\' $1 '`, ""}, // the last quotation is not closed
		{"postgres", `E'\' :user' :user`, `E'\' :user' $1`, "user"},
		{"postgres", `note'\' :user`, `note'\' $1`, "user"},
		{"mysql", `'\' :user' "\" :user" :user`, `'\' :user' "\" :user" ?`, "user"},
		{"mysql", "`\\` :user", "`\\` ?", "user"},
		{"sqlite", `'\' :user`, `'\' ?`, "user"},

		{"postgres", "-- :user\n:user", "-- :user\n$1", "user"},
		{"postgres", "a--:user\n:user", "a--:user\n$1", "user"},
		{"mysql", "a--:user\n-- :user\n# :user\n:user --", "a--?\n-- :user\n# :user\n? --", "user user"},
		{"sqlite", "a # :user -- :user", "a # ? -- :user", "user"},
		{"postgres", "/* :user /* :user */ :user */ :user", "/* :user /* :user */ :user */ $1", "user"},
		{"mysql", "/* :user /* :user */ :user", "/* :user /* :user */ ?", "user"},
		{"sqlite", "/* ' */ :user /* ' */", "/* ' */ ? /* ' */", "user"},

		{"postgres", "$$ :user $$ :user", "$$ :user $$ $1", "user"},
		{"postgres", "$a$ :user $$ :user $a$ :user", "$a$ :user $$ :user $a$ $1", "user"},
		{"postgres", "a$b$ :user", "a$b$ $1", "user"},
		{"mysql", "$$ :user $$", "$$ ? $$", "user"},
		{"postgres", ":user::text = a::text AND b[1:2] @> c", "$1::text = a::text AND b[1:2] @> c", "user"},
		{"postgres", "tags ? 'mail' AND x = :user", "tags ? 'mail' AND x = $1", "user"},
		{"mysql", "@n := :user, @m:=1", "@n := ?, @m:=1", "user"},
		{"mysql", "'ä'=:user", "'ä'=?", "user"},
		{"postgres", ": user", ": user", ""},
	} {
		got, err := parseSQL(tt.driver, configs.Query(tt.query))
		if strings.HasSuffix(tt.query, `user '`) {
			if err == nil || !strings.Contains(err.Error(), "not closed") {
				t.Errorf("%s: %s: got %v, want that it is not closed", tt.driver, tt.query, err)
			}
			continue
		}
		if err != nil || got.text != tt.want || strings.Join(got.parameters, " ") != tt.parameters {
			t.Errorf("%s: %s\ngot  %s with %q, %v\nwant %s with %s", tt.driver, tt.query, got.text, got.parameters, err, tt.want, tt.parameters)
		}
	}
}

func TestParseSQLErrors(t *testing.T) {
	for _, tt := range []struct{ driver, query, want string }{
		{"postgres", "SELECT :usr", "unknown parameter :usr; valid are :user :local :domain :service :sni :client"},
		{"mysql", "SELECT :password", "unknown parameter :password"},
		{"sqlite", "SELECT :User", "unknown parameter :User"},
		{"sqlite", "SELECT :userä", "unknown parameter :userä"},
		{"mysql", "SELECT ?", "parameters have names"},
		{"sqlite", "SELECT ?1", "parameters have names"},
		{"postgres", "SELECT $1", "$1 outside of quotes; parameters have names"},
		{"postgres", "SELECT 'x", "the quotation mark ' is not closed"},
		{"mysql", `SELECT 'x\'`, "the quotation mark ' is not closed"},
		{"mysql", "SELECT `x", "the quotation mark ` is not closed"},
		{"sqlite", "SELECT [x", "a name in brackets is not closed"},
		{"postgres", "SELECT $a$ x $b$", "a string between dollar signs is not closed"},
		{"postgres", "SELECT /* /* */", "a comment is not closed"},
		{"mysql", "SELECT /*/", "a comment is not closed"},
	} {
		if _, err := parseSQL(tt.driver, configs.Query(tt.query)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %s: got %v, want %s", tt.driver, tt.query, err, tt.want)
		}
	}
}

func TestSQLArguments(t *testing.T) {
	query, err := parseSQL("sqlite", ":client :sni :service :domain :local :user :client")
	if err != nil {
		t.Fatal(err)
	}
	q := Query{User: "a@b.example", Local: "a", Domain: "b.example", Service: configs.IMAPS, SNI: "mail.b.example",
		Client: netip.MustParseAddr("::ffff:192.0.2.1")}
	want := []any{"192.0.2.1", "mail.b.example", "imaps", "b.example", "a", "a@b.example", "192.0.2.1"}
	if diff := cmp.Diff(want, query.arguments(q)); diff != "" {
		t.Error(diff)
	}
	if got := query.arguments(Query{})[0]; got != nil {
		t.Errorf("no client is %v, and not NULL", got)
	}
}

// FuzzParseSQL: whatever is written, all of it stays but for the parameters.
func FuzzParseSQL(f *testing.F) {
	for _, query := range []string{"SELECT :user", "'a''b' :user", "$a$ :user $a$", "/* */ -- \n# :sni", `E'\'' "`, "a::text := ? $1 [x]"} {
		for i := range configs.SQLDrivers {
			f.Add(i, query)
		}
	}
	f.Fuzz(func(t *testing.T, i int, query string) {
		driver := configs.SQLDrivers[uint(i)%uint(len(configs.SQLDrivers))]
		got, err := parseSQL(driver, configs.Query(query))
		if err != nil {
			return
		}
		back := got.text
		if driver != "postgres" {
			if back = strings.ReplaceAll(back, "?", ""); len(got.text)-len(back) < len(got.parameters) {
				t.Errorf("%q became %q, with %q", query, got.text, got.parameters)
			}
		}
		for _, name := range got.parameters {
			if !strings.Contains(query, ":"+name) {
				t.Errorf("%q has no parameter %s", query, name)
			}
		}
	})
}
