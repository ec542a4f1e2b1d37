package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestGuide: what the guide says that clients and logs say is in the program. "…" stands for anything.
func TestGuide(t *testing.T) {
	data, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	_, watching, _ := strings.Cut(string(data), "| worth an alarm |")
	program := programText(t)
	seen := 0
	for line := range strings.Lines(watching) {
		quotes := guideQuotes(line)
		for _, quote := range quotes {
			for part := range strings.SplitSeq(guideCode.ReplaceAllString(quote, ""), "…") {
				part = strings.Trim(part, `:, "`)
				if seen++; !strings.Contains(program, part) {
					t.Errorf("the guide quotes %q, and nothing in the program says %q", quote, part)
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d quotes were found", seen)
	}
}

// guideCode is what a protocol puts before a sentence: "NO [UNAVAILABLE] ", "535 5.7.8 ", "* BYE ".
var guideCode = regexp.MustCompile(`^(?:[*A-Z0-9.+-]+ |-ERR |\[[A-Z/]+\] |\([A-Z-]+\) )+`)

// guideQuotes returns what a line quotes: of a symptom all that clients and log say, of a table what its first column says.
func guideQuotes(line string) (quotes []string) {
	text := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(text, "| `"):
		text, _, _ = strings.Cut(text[2:], " |")
	case !strings.HasPrefix(text, "- Client:") && !strings.HasPrefix(text, "- Log:"):
		return nil
	}
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			quotes = append(quotes, part)
		}
	}
	return quotes
}

// programText is every string of the program.
func programText(t *testing.T) string {
	var all strings.Builder
	literal := regexp.MustCompile("\"(?:[^\"\\\\\n]|\\\\.)*\"|`[^`]*`")
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, quoted := range literal.FindAllString(string(data), -1) {
			if text, err := strconv.Unquote(quoted); err == nil {
				all.WriteString(text + "\n")
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestLinks: what documents link to is there, and so are the files of Go that they name. Pictures may be still to be drawn.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`(?:^|[^!])\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)`)
	source := regexp.MustCompile(`\b[a-z]+/[a-z/]+\.go\b`)
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/man/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, page := range pages {
			data, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range link.FindAllStringSubmatch(string(data), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(page), found[1])); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
			for _, file := range source.FindAllString(string(data), -1) {
				if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
		}
	}
}
