package configs

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretFile(t *testing.T) {
	long := strings.Repeat("x", maxSecret)
	for _, test := range []struct {
		contents, want string // the secret, or the end of the error
	}{
		{"secret", "secret"},
		{"secret\n", "secret"},
		{"secret\r\n", "secret"},
		{" pass phrase ", " pass phrase "},
		{"pässwörd\n", "pässwörd"},
		{long + "\r\n", long},

		{"", "the secret is empty"},
		{"\n", "the secret is empty"},
		{long + "y", "the secret is longer than 1024 bytes"},
		{long + long + long, "the secret is longer than 1024 bytes"},
		{"secret\n\n", "the secret must be one line of UTF-8 without control characters"},
		{"sec\x00ret", "the secret must be one line of UTF-8 without control characters"},
		{"sec\rret", "the secret must be one line of UTF-8 without control characters"},
		{"\xff", "the secret must be one line of UTF-8 without control characters"},
	} {
		d := &decoder{dir: t.TempDir()}
		file := filepath.Join(d.dir, "password")
		write(t, file, test.contents)
		got, err := d.readSecret("password")
		if err != nil {
			got = strings.TrimPrefix(err.Error(), file+": ")
		}
		if got != test.want {
			t.Errorf("%.20q: got %.80q, want %.80q", test.contents, got, test.want)
		}
	}
}

// TestSecretInherited: a service's own key, whichever of the two, stands for both.
func TestSecretInherited(t *testing.T) {
	dir := t.TempDir()
	for name, contents := range map[string]string{"a": "from a\n", "b": "from b\n"} {
		write(t, filepath.Join(dir, name), contents)
	}
	for _, test := range []struct{ backend, lmtp, want string }{
		{`login_password = "here"`, ``, "here"},
		{`login_password_file = "a"`, ``, "from a"},
		{`login_password = "here"`, `, login_password_file = "b"`, "from b"},
		{`login_password_file = "a"`, `, login_password = "there"`, "there"},
		{`login_password_file = "a"`, `, login_password_file = "b"`, "from b"},
		{`login_password_file = "` + dir + `/a"`, ``, "from a"},
	} {
		config, err := Parse(filepath.Join(dir, "jackdaw.toml"), []byte(`
			listen.lmtp = "unix:/run/lmtp"
			[[backend]]
			name = "store"
			login_user = "proxy"
			lmtp = { address = "unix:/run/store"`+test.lmtp+` }
			`+test.backend))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := config.Backends[0].Access[LMTP].LoginPassword; got != test.want {
			t.Errorf("%s%s: got %q, want %q", test.backend, test.lmtp, got, test.want)
		}
	}
}
