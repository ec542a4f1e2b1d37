package integration

import (
	"flag"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

var photograph = flag.Bool("photograph", false, "write the picture of the status page, docs/status.png")

// markup is a name that somebody may try to log in with. Its store is down, so the log asks for attention.
const markup = `<img src=x onerror=alert(1)>`

// TestPage: a browser shows what goes on, on any screen and in the colours that somebody likes, and what strangers have said as what
// they have said.
func TestPage(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	dovecot := startDovecot(t, "north", passwords, "alice@a.example", "anna@a.example").serving("imap", "sieve")
	line, url := onStatus()
	south := fmt.Sprintf("[[backend]]\nname = \"south\"\nimap = %q\n", net.JoinHostPort(newHost(), portIMAP)) // where nobody is
	jd := startJackdaw(t, line, dovecot.backend(), south, domainTo("a.example", dovecot), "[[route]]\ndomain = \"b.example\"\nto = \"south\"\n")
	jd.knows(dovecot)
	write(t, jd.file, "hostname = \"mail.a.example\"\n"+contents(t, jd.file))
	jd.signal(syscall.SIGHUP)
	jd.logged(t, `"msg":"reloaded"`)
	alice := jd.login("mail.a.example", "alice")
	stranger := jd.imap("mail.b.example")
	if _, status := stranger.command(fmt.Sprintf("LOGIN %q secret", markup)); !strings.HasPrefix(status, unavailable) {
		t.Fatalf("a stranger is told %q", status)
	}

	b.screen(1280, 900)
	b.likes("light")
	b.open(url + "/")
	b.shows("alice's session", `document.getElementById("sessions").innerText.includes("alice@a.example")`)
	b.shows("the stranger's name as text", `document.getElementById("sessions").innerText.includes(arguments[0])
		&& document.getElementById("warnings").innerText.includes(arguments[0])
		&& document.images.length === 0`, markup)
	b.shows("the stores", `/north[^]*up[^]*south[^]*imap down/.test(document.getElementById("backends").innerText)`)
	b.shows("logins", `document.getElementById("logins").innerText.includes("store or directory failed 1")
		&& document.querySelectorAll("#logins rect.good").length > 0`)
	b.shows("the certificates", `/of 3\s+certificates/.test(document.getElementById("sum").innerText)`)

	anna := jd.login("mail.a.example", "anna")
	b.shows("anna, who came later", `document.getElementById("sessions").innerText.includes("anna@a.example")`)
	b.run(`const q = document.querySelector("[name=q]"); q.focus(); q.value = "ANNA"; q.dispatchEvent(new Event("input"))`)
	b.shows("anna alone, who was searched for", `document.querySelectorAll("#sessions tbody tr").length === 1
		&& document.getElementById("sessions").innerText.includes("anna@a.example") && location.search === "?q=ANNA"
		&& document.activeElement.name === "q"`)
	b.open(url + "/?q=nobody")
	b.shows("nobody", `document.querySelectorAll("#sessions tr").length === 0 && document.querySelector("[name=q]").value === "nobody"`)
	b.open(url + "/")
	b.shows("the name that a reload has given", `document.title === "jackdaw mail.a.example"`)
	if *photograph {
		b.screen(1100, 1420)
		b.photograph("../docs/status.png")
	}

	b.fits(t)
	if complaints := b.complaints(); len(complaints) != 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
	alice.conn.Close()
	anna.conn.Close()
	stranger.conn.Close()
	if err := jd.stop(); err != nil {
		t.Fatal(err)
	}
	b.shows("that it is out of date", `!document.getElementById("stale").hidden`)
}

// fits looks at the page on screens from a small phone on, in light and in dark.
func (b *browser) fits(t testing.TB) {
	t.Helper()
	var background [2]float64
	for i, scheme := range []string{"light", "dark"} {
		b.likes(scheme)
		for _, width := range []int{320, 360, 768, 1280, 2560} {
			b.screen(width, 800)
			b.shows("the screen", "innerWidth === arguments[0]", width)
			if wide := b.run("return document.documentElement.scrollWidth").(float64); wide > float64(width) {
				t.Errorf("on a screen of %d pixels the page is %v wide", width, wide)
			}
			if cut := b.run(cutOff); cut != "" {
				t.Errorf("on a screen of %d pixels something is cut off: %s", width, cut)
			}
		}
		var contrast float64
		background[i] = b.run("return " + luminance + "(getComputedStyle(document.body).backgroundColor)").(float64)
		contrast = b.run("const l = " + luminance + `; let least = 21;
			for (const e of document.querySelectorAll("main *")) {
				if (!e.firstChild || e.firstChild.nodeType !== 3 || !e.firstChild.data.trim() || e.closest("svg, button")) continue;
				const a = l(getComputedStyle(e).color), b = l(getComputedStyle(e.closest("section")).backgroundColor);
				least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
			}
			return least`).(float64)
		if contrast < 4.5 { // WCAG 2.2, success criterion 1.4.3
			t.Errorf("in %s colours the least contrast is %.2f", scheme, contrast)
		}
	}
	if background[0] < 0.7 || background[1] > 0.1 {
		t.Errorf("light and dark are as bright as %v", background)
	}
}

// cutOff finds something that reaches beyond the window, or text that reaches beyond its box.
const cutOff = `
	for (const e of document.querySelectorAll("main *:not(svg *):not(thead *):not(thead)")) {
		if (e.getBoundingClientRect().right > innerWidth + 1) return e.outerHTML;
	}
	return ""`

// luminance is a function of a colour as computed styles have it, by WCAG 2.2.
const luminance = `(colour => {
	const [r, g, b] = colour.match(/[\d.]+/g).map(x => x / 255).map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
	return .2126 * r + .7152 * g + .0722 * b;
})`
