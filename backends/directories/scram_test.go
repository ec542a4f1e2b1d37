package directories

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// The password is "pencil", as in RFC 7677 section 3.
const (
	pencil1   = "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE="
	pencil256 = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

// scramAccounts is a file in which users have their passwords in several ways.
func scramAccounts(t *testing.T, cache time.Duration) Directory {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	lines := "anna@a.example store1 password=" + pencil256 + "\n" +
		"old@a.example store1 password=" + pencil1 + "\n" +
		"postgres@a.example store1 password=" + strings.Replace(strings.NewReplacer("{SCRAM-SHA-256}", "SCRAM-SHA-256$", ",", ":").Replace(pencil256), "==:", "==$", 1) + "\n" +
		"clear@a.example store1 user=claire only=pop3 password={PLAIN}pencil\n" +
		"hashed@a.example store1 password={SHA}AAAA\n" +
		"locked@a.example store1 password=!" + pencil256 + "\n" +
		"damaged@a.example store1 password={SCRAM-SHA-256}4096,x\n" +
		"none@a.example store1\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open("accounts", configs.Directory{Kind: configs.DirectoryFile, Path: path, Cache: cache, Stale: cache, Timeout: patience}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// scramLogin lets a client log in, and returns what came of it; the client has proof that the server knows the password.
func scramLogin(t *testing.T, d Directory, mechanism, user, password string) (answer Answer, asked int, proved bool, err error) {
	t.Helper()
	client, err := scramMechanisms[mechanism].NewClient("anybody", password, "")
	if err != nil {
		t.Fatal(err)
	}
	conversation := client.NewConversation()
	step := func(challenge []byte) ([]byte, error) {
		response, err := conversation.Step(string(challenge))
		return []byte(response), err
	}
	first, err := step(nil)
	if err != nil {
		t.Fatal(err)
	}
	local, domain, _ := strings.Cut(user, "@")
	q := Query{User: user, Local: local, Domain: domain, Service: configs.IMAPS, Mechanism: mechanism, Verify: true}
	q.Exchange = &Exchange{Name: "anybody", First: first, Ask: func(challenge []byte) ([]byte, error) {
		asked++
		return step(challenge)
	}}
	answer, err = d.Lookup(t.Context(), q)
	return answer, asked, conversation.Valid(), err
}

// Keys, and passwords of which they can be made, serve their mechanism; whoever has none hears no challenge, and nobody hears of them.
func TestScram(t *testing.T) {
	for _, cache := range []time.Duration{0, time.Minute} {
		d := scramAccounts(t, cache)
		for _, tt := range []struct {
			user, mechanism, password string
			want                      string // "in", "wrong" at the end, "denied" at once, "unknown", or what an error says
		}{
			{"anna", "SCRAM-SHA-256", "pencil", "in"},
			{"anna", "SCRAM-SHA-256", "Pencil", "wrong"},
			{"anna", "SCRAM-SHA-1", "pencil", "denied"},
			{"old", "SCRAM-SHA-1", "pencil", "in"},
			{"old", "SCRAM-SHA-256", "pencil", "denied"},
			{"postgres", "SCRAM-SHA-256", "pencil", "in"},
			{"clear", "SCRAM-SHA-256", "pencil", "in"},
			{"clear", "SCRAM-SHA-1", "pencil", "in"},
			{"clear", "SCRAM-SHA-1", "pencils", "wrong"},
			{"nobody", "SCRAM-SHA-1", "pencil", "unknown"},
			{"hashed", "SCRAM-SHA-256", "pencil", "denied"},
			{"locked", "SCRAM-SHA-256", "pencil", "denied"},
			{"none", "SCRAM-SHA-256", "pencil", "denied"},
			{"damaged", "SCRAM-SHA-256", "pencil", "damaged"},
		} {
			answer, asked, proved, err := scramLogin(t, d, tt.mechanism, tt.user+"@a.example", tt.password)
			got := fmt.Sprint(err)
			switch {
			case err == nil && answer.Verified && asked == 2 && proved:
				got = "in"
			case errors.Is(err, ErrDenied) && asked == 1:
				got = "wrong"
			case errors.Is(err, ErrDenied) && asked == 0:
				got = "denied"
			case errors.Is(err, ErrNotFound) && asked == 0:
				got = "unknown"
			}
			if !strings.Contains(got, tt.want) || answer.Stored != "" || tt.want != "in" && answer != (Answer{}) {
				t.Errorf("%s, %s, %s: %s: %+v, %d challenges; want %s", tt.user, tt.mechanism, tt.password, got, answer, asked, tt.want)
			}
		}
	}
}

// What else the directory says holds for whoever has logged in so, and a session that has ended in the middle is an error of its own.
func TestScramAnswer(t *testing.T) {
	d := scramAccounts(t, time.Minute)
	answer, _, _, err := scramLogin(t, d, "SCRAM-SHA-256", "clear@a.example", "pencil")
	if err != nil || answer.User != "claire" || answer.Refuse == "" || answer.Backend != "store1" {
		t.Errorf("%+v, %v", answer, err)
	}
	gone := errors.New("the client has left")
	q := anna
	q.Verify, q.Mechanism = true, "SCRAM-SHA-256"
	q.Exchange = &Exchange{First: []byte("n,,n=anna,r=x"), Ask: func([]byte) ([]byte, error) { return nil, gone }}
	if answer, err := d.Lookup(t.Context(), q); !errors.Is(err, gone) || answer != (Answer{}) {
		t.Errorf("%+v, %v", answer, err)
	}
	for _, response := range []string{"", "c=biws", "c=biws,r=x,p=AAAA", "c=eSws,r=x,p=AAAA", "\x00", strings.Repeat("x", 10000)} {
		q.Exchange.Ask = func([]byte) ([]byte, error) { return []byte(response), nil }
		if answer, err := d.Lookup(t.Context(), q); !errors.Is(err, ErrDenied) || answer != (Answer{}) {
			t.Errorf("%.20q: %+v, %v", response, answer, err)
		}
	}
}

// A database is asked for the keys, too; a query without them is a mistake and no wrong password.
func TestScramSQL(t *testing.T) {
	file := makeSQLite(t, "CREATE TABLE users (name TEXT, password TEXT); INSERT INTO users VALUES ('anna@a.example', '"+pencil256+"'), ('bob@a.example', NULL)")
	d := openSQL(t, "sqlite", file, "SELECT password FROM users WHERE name = :user")
	if answer, _, proved, err := scramLogin(t, d, "SCRAM-SHA-256", "anna@a.example", "pencil"); err != nil || !answer.Verified || !proved {
		t.Errorf("%+v, %v", answer, err)
	}
	if answer, asked, _, err := scramLogin(t, d, "SCRAM-SHA-256", "bob@a.example", "pencil"); !errors.Is(err, ErrDenied) || asked != 0 {
		t.Errorf("%+v, %v", answer, err)
	}
	if _, _, _, err := scramLogin(t, d, "SCRAM-SHA-256", "nobody@a.example", "pencil"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	d = openSQL(t, "sqlite", file, "SELECT name AS user FROM users WHERE name = :user")
	if _, _, _, err := scramLogin(t, d, "SCRAM-SHA-256", "anna@a.example", "pencil"); err == nil || errors.Is(err, ErrDenied) {
		t.Error(err)
	}
}

// One who has the password in the clear keeps his salt, and no two have the same.
func TestScramSalt(t *testing.T) {
	if salt := string(scramSalt("anna@a.example")); salt != string(scramSalt("Anna@a.example")) || salt == string(scramSalt("bob@a.example")) || len(salt) != 16 {
		t.Errorf("%x", salt)
	}
	var _ scram.NonceGeneratorFcn = scramNonce
	if first := scramNonce(); first == scramNonce() || len(first) != 24 {
		t.Errorf("the nonce %q", first)
	}
}
