package passwords

import (
	"bufio"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// right is the password of testdata/made.txt.
const right = "correct horse"

// TestMade: what other programs have made is right with its password, wrong with others, and never right when it is damaged.
func TestMade(t *testing.T) {
	for made, stored := range readMade(t) {
		t.Run(made, func(t *testing.T) {
			for _, tt := range []struct {
				password string
				want     bool
			}{{right, true}, {"Correct horse", false}} {
				if got, err := Verify(t.Context(), stored, tt.password); got != tt.want || err != nil {
					t.Errorf("%.40q: got %v, %v, want %v", tt.password, got, err, tt.want)
				}
			}
			if strings.Contains(stored, "$argon2") {
				return // it costs seconds under the race detector
			}
			start := strings.IndexByte(stored, '}') + 1
			for cut := start + 1; cut < len(stored); cut += 1 + len(stored)/10 {
				if got, _ := Verify(t.Context(), stored[:cut], right); got {
					t.Errorf("%q, cut short, is right", stored[:cut])
				}
			}
		})
	}
}

// readMade reads what stands for a command.
func readMade(t testing.TB) map[string]string {
	t.Helper()
	f, err := os.Open("testdata/made.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string]string)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if made, stored, ok := strings.Cut(lines.Text(), "|"); ok {
			all[made] = stored
		}
	}
	return all
}

// postgres is the verifier that PostgreSQL 15 made of the password "Ⅸ\u00a0\u00adü".
const postgres = "SCRAM-SHA-256$4096:ifLPl7ac4spyrufwHxi0Rg==$Z5432tkAP98juwqHsn6Y73MkWSsojPozi3LNzjIayDE=:ks+O5CqDQT82s/qvfTJ55to0A4FSAnluUFgNcKLL/dE="

// TestSpecified has the examples of specifications.
func TestSpecified(t *testing.T) {
	for _, tt := range []struct{ from, stored, password string }{
		{"Drepper, SHA-256", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
		{"Drepper, rounds", "$5$rounds=10000$saltstringsaltstring$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"},
		{"Drepper, SHA-512", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1", "Hello world!"},
		{"SCRAM-SHA-1 of RFC 5802 section 5", "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=", "pencil"},
		{"SCRAM-SHA-256 of RFC 7677 section 3", "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=", "pencil"},
		{"the same, as RFC 5803 and PostgreSQL have it", "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=", "pencil"},
		{"PostgreSQL, which prepares passwords", postgres, "Ⅸ\u00a0\u00adü"},
		{"PostgreSQL, prepared already", postgres, "IX ü"},
		{"bcrypt of crypt_blowfish", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"bcrypt, 72 characters count", "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
			"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored"},
		{"crypt(3) of Debian, DES", "rqPLsthsoEKyY", "0123456789"},
		{"crypt(3) of Debian, DES: eight characters count", "rqPLsthsoEKyY", "01234567xxx"},
		{"MD5 of RFC 1321", "900150983cd24fb0d6963f7d28e17f72", "abc"},
		{"MD5 in capitals", "900150983CD24FB0D6963F7D28E17F72", "abc"},
		{"MySQL's manual, PASSWORD()", "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4", "mypass"},
		{"MySQL's manual, OLD_PASSWORD()", "6f8c114b58f2ce9e", "mypass"},
	} {
		if got, err := Verify(t.Context(), tt.stored, tt.password); !got || err != nil {
			t.Errorf("%s: %v, %v", tt.from, got, err)
		}
	}
}

// TestUnusable: the password may be right, and so none of these says that it is wrong.
func TestUnusable(t *testing.T) {
	for _, tt := range []struct {
		stored string
		want   string // a part of the error
	}{
		{"secret", "does not say its scheme"},
		{"secret secret", "does not say its scheme"},
		{"{}secret", "does not say its scheme"},
		{"{ROT13}frperg", "unknown scheme, {ROT13}"},
		{"{DIGEST-MD5}a522fbc8f0b1cd9a15a21c43db8911d1", "unknown scheme, {DIGEST-MD5}"},
		{"{SHA.B32}frperg", "unknown encoding, {SHA.B32}"},
		{"{SHA.HEX}xyz", "damaged"},
		{"{SHA}????", "damaged"},
		{"{SHA}5en6G6MezRroT3XKqkdPOmY/Bf==", "damaged"},
		{"{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "damaged"}, // no salt
		{"{CRYPT}", "damaged"},
		{"{CRYPT}secret", "damaged"},
		{"{PBKDF2}$1$salt$1000$zz", "damaged"},
		{"{PBKDF2}$1$salt$0$04e5f23a369b9a417ddf0fcdf6accf537b6111c7", "damaged"},
		{"{PBKDF2}$1$salt$1000000000$04e5f23a369b9a417ddf0fcdf6accf537b6111c7", "too much work"},
		{"{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=", "damaged"},
		{"{SCRAM-SHA-1}1000000000,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,", "too much work"},
		{"{CRAM-MD5}00", "damaged"},
		{"{MYSQL}00", "damaged"},
		{"$gy$j9T$x$y", "unknown kind, $gy$"},
		{"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "unknown kind, $2x$"},
		{"$A secret$", "damaged"},
		{"$", "damaged"},
		{"$1$salt", "damaged"},
		{"$1$salt$short", "damaged"},
		{"$5$rounds=999$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "damaged"},
		{"$5$round=5000$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "damaged"},
		{"$5$rounds=999999999$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "too much work"},
		{"$6$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "damaged"},
		{"$2y$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "too much work"},
		{"$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe", "damaged"},
		{"$2y$05$CCCCCCCCCCCCCCCCCCCCC?E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "damaged"},
		{"$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", "too much work"},
		{"$argon2id$v=19$m=262144,t=100,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", "too much work"},
		{"$argon2id$v=19$m=64,t=1,p=256$c2FsdHNhbHQ$AAAAAAAAAAA", "too much work"},
		{"$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", "damaged"},
		{"$argon2id$v=16$m=64,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", "damaged"},
		{"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$", "damaged"},
		{"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$AA", "damaged"},
		{"$argon2d$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAA", "unknown kind, $argon2d$"},
		{"$y$jFT$UfilT3W0f/SVRqgjv8ieD0$2m1kIAmc557WeCOCEJ.kKwv5Ej2ZFuTMF9WjOdAVte9", "too much work"},
		{"$y$kFT$UfilT3W0f/SVRqgjv8ieD0$2m1kIAmc557WeCOCEJ.kKwv5Ej2ZFuTMF9WjOdAVte9", "damaged"},
		{"$y$j?T$UfilT3W0f/SVRqgjv8ieD0$2m1kIAmc557WeCOCEJ.kKwv5Ej2ZFuTMF9WjOdAVte9", "damaged"},
		{"$y$j9T$????T3W0f/SVRqgjv8ieD0$2m1kIAmc557WeCOCEJ.kKwv5Ej2ZFuTMF9WjOdAVte9", "damaged"},
		{"$y$j9T$UfilT3W0f/SVRqgjv8ieD0$2m1kIAmc557", "damaged"},
		{"{PLAIN}" + strings.Repeat("x", 2000), "damaged"},
	} {
		got, err := Verify(t.Context(), tt.stored, right)
		if got || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80s: got %v, %v, want an error with %q", tt.stored, got, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has what is stored: %v", tt.stored, err)
		}
	}
}

// TestNobody: these accounts have no password.
func TestNobody(t *testing.T) {
	for _, stored := range []string{"", "*", "!", "!!", "!$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"} {
		for _, password := range []string{"", "U*U", stored, strings.Repeat("x", 5000)} {
			if got, err := Verify(t.Context(), stored, password); got || err != nil {
				t.Errorf("%q with %q: %v, %v", stored, password, got, err)
			}
		}
	}
	if got, err := Verify(t.Context(), "{PLAIN}", ""); got || err != nil {
		t.Errorf("nothing is nothing: %v, %v", got, err)
	}
}

// TestQueue: with all slots taken a verification waits, until one is free or patience ends.
func TestQueue(t *testing.T) {
	for range cap(slots) {
		slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if got, err := Verify(ctx, "{PLAIN}"+right, right); got || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v, want the end of patience", got, err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Verify(context.WithoutCancel(ctx), "{PLAIN}"+right, right)
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("did not wait: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	for range cap(slots) {
		<-slots
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzVerify: nothing that is stored makes it panic, or right what is wrong.
func FuzzVerify(f *testing.F) {
	for _, stored := range readMade(f) {
		f.Add(stored)
	}
	maxRounds, maxBcryptCost, maxMemory, maxPasses, maxIterations = 5000, 5, 64, 256, 5000
	f.Fuzz(func(t *testing.T, stored string) {
		const unlikely = "\x01 nobody has this password"
		if strings.Contains(stored, unlikely) {
			return
		}
		if got, _ := Verify(t.Context(), stored, unlikely); got {
			t.Errorf("%q has the password %q", stored, unlikely)
		}
	})
}
