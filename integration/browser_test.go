package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// browser is a headless Chromium that does what it is told by WebDriver (https://www.w3.org/TR/webdriver2/).
type browser struct {
	t       testing.TB
	session string // the URL of its session
}

// startBrowser runs one until the test ends. Debian has it; where the archive has none, the test skips.
func startBrowser(t testing.TB) *browser {
	t.Helper()
	dir := filepath.Join(needServers(t), "chromium")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !strings.Contains(contents(t, "/etc/os-release"), "\nID=debian\n") {
		t.Skip("this system has no package of a Chromium without a screen")
	}
	home := t.TempDir()
	run := func(name, says string, args ...string) string {
		cmd := exec.Command(filepath.Join(dir, name), args...)
		cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home, "LANG=C.UTF-8")
		line := startProcess(t, filepath.Join(home, filepath.Base(name)+".log"), cmd).logged(t, says)
		return regexp.MustCompile(says + `\D*?:?(\d+)[./]`).FindStringSubmatch(line)[1]
	}
	// What it is shown is ours, and its own sandbox needs more than a container may have. Without a page at the start the driver
	// would wait for one.
	chromium := run("usr/lib/chromium/chromium-headless-shell", "DevTools listening on ws://127.0.0.1", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-proxy-server", "--no-first-run", "--remote-debugging-port=0", "--user-data-dir="+filepath.Join(home, "data"), "about:blank")
	driver := run("usr/bin/chromedriver", "started successfully on port", "--port=0")
	b := &browser{t: t, session: "http://127.0.0.1:" + driver + "/session"}
	var begun struct {
		SessionID string `json:"sessionId"`
	}
	b.do("POST", "", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:loggingPrefs":  map[string]any{"browser": "ALL"},
		"goog:chromeOptions": map[string]any{"debuggerAddress": "127.0.0.1:" + chromium},
	}}}, &begun)
	b.session += "/" + begun.SessionID
	t.Cleanup(func() { b.do("DELETE", "", nil, nil) })
	return b
}

// do tells the browser something, and fills in what it answers.
func (b *browser) do(method, path string, details, answer any) {
	b.t.Helper()
	var body io.Reader
	if details != nil {
		text, err := json.Marshal(details)
		must(b.t, err)
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, b.session+path, body)
	must(b.t, err)
	client := http.Client{Timeout: 2 * patience}
	response, err := client.Do(request)
	must(b.t, err)
	defer response.Body.Close()
	var value struct{ Value json.RawMessage }
	must(b.t, json.NewDecoder(response.Body).Decode(&value))
	if response.StatusCode != http.StatusOK {
		b.t.Fatalf("the browser says to %s %s: %s", method, path, value.Value)
	}
	if answer != nil {
		must(b.t, json.Unmarshal(value.Value, answer))
	}
}

// open goes to a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do("POST", "/url", map[string]any{"url": url}, nil)
}

// run runs the body of a function, and returns what it returns.
func (b *browser) run(script string, args ...any) (value any) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.do("POST", "/execute/sync", map[string]any{"script": script, "args": args}, &value)
	return value
}

// shows waits until an expression is true.
func (b *browser) shows(what, expression string, args ...any) {
	b.t.Helper()
	for end := time.Now().Add(patience); b.run("return "+expression, args...) != true; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("after %v still not: %s\n%s", patience, what, b.run("return document.body.innerText"))
		}
	}
}

// emulate has the browser be like another one.
func (b *browser) emulate(what string, how map[string]any) {
	b.t.Helper()
	b.do("POST", "/goog/cdp/execute", map[string]any{"cmd": "Emulation." + what, "params": how}, nil)
}

// screen has the size of a window in CSS pixels.
func (b *browser) screen(width, height int) {
	b.t.Helper()
	b.emulate("setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
}

// likes has somebody like light or dark colours.
func (b *browser) likes(scheme string) {
	b.t.Helper()
	b.emulate("setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// complaints are what the page has made the browser say of errors, and of what its policy forbids.
func (b *browser) complaints() (all []string) {
	b.t.Helper()
	var entries []struct{ Level, Message string }
	b.do("POST", "/se/log", map[string]any{"type": "browser"}, &entries)
	for _, e := range entries {
		all = append(all, fmt.Sprint(e.Level, ": ", e.Message))
	}
	return all
}

// photograph writes what the window shows into a file, as PNG.
func (b *browser) photograph(file string) {
	b.t.Helper()
	var picture string
	b.do("GET", "/screenshot", nil, &picture)
	data, err := base64.StdEncoding.DecodeString(picture)
	must(b.t, err)
	must(b.t, os.WriteFile(file, data, 0o644))
}
