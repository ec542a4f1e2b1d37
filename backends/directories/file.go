package directories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/whole"
)

// filePoll is how often a file is looked at. A variable, so that tests need not wait.
var filePoll = 2 * time.Second

// fileDirectory is a text file with a line for each user or domain:
//
//	# name            backend   and perhaps more
//	anna@a.example    store1
//	bob@a.example     store2    user=robert only=imap,submission password={SSHA}...
//	@b.example        farm
//
// The line of the user decides, or else that of the domain. It is held in memory, and read again when it changes. A file
// with anything wrong in it changes nothing.
type fileDirectory struct {
	path      string
	log       *zap.Logger
	entries   atomic.Pointer[entries]
	passwords storedPasswords

	reader  whole.Reader
	problem string // as it was logged last

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// entries map a name, or "@" and a domain, to the rest of its line. All strings are parts of the one that was read.
type entries map[string]string

func newFile(c configs.Directory, log *zap.Logger) (Directory, error) {
	ctx, cancel := context.WithCancel(context.Background())
	d := &fileDirectory{path: c.Path, log: log, cancel: cancel}
	d.look()
	d.done.Go(func() { d.follow(ctx) })
	return d, nil
}

// Close ends the watching.
func (d *fileDirectory) Close() {
	d.cancel()
	d.done.Wait()
}

func (d *fileDirectory) follow(ctx context.Context) {
	ticker := time.NewTicker(filePoll)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.look()
		case <-ctx.Done():
			return
		}
	}
}

// look reads the file if it has changed.
func (d *fileDirectory) look() {
	text, changed, err := d.reader.Read(d.path)
	if !changed {
		return
	}
	var read entries
	if err == nil {
		read, err = parseEntries(string(text))
	}
	if err != nil {
		if d.problem != err.Error() {
			d.problem = err.Error()
			d.log.Error("directory's file cannot be used; what was read before holds", zap.String("file", d.path), zap.Error(err))
		}
		return
	}
	before := d.entries.Swap(&read)
	if before == nil || d.problem != "" || len(*before) != len(read) {
		d.log.Info("directory's file read", zap.String("file", d.path), zap.Int("entries", len(read)))
	}
	d.problem = ""
}

var (
	errNoFile = errors.New("the directory's file could not be read yet")
	// errEmptyFile keeps all users from being unknown, and their mail from being returned, when a disk was full while it was written.
	errEmptyFile = errors.New("it is empty; where nobody is meant, a comment says so")
)

// Lookup finds the line of a user.
func (d *fileDirectory) Lookup(ctx context.Context, q Query) (Answer, error) {
	all := d.entries.Load()
	if all == nil {
		return Answer{}, errNoFile
	}
	line, ok := (*all)[strings.ToLower(q.User)]
	if !ok && q.Domain != "" {
		line, ok = (*all)["@"+strings.ToLower(q.Domain)]
	}
	if !ok {
		if q.Verify {
			d.passwords.waste(ctx)
		}
		return Answer{}, ErrNotFound
	}
	entry, err := parseEntry(line)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Backend: entry.backend, User: entry.user}
	if q.Stored {
		answer.Stored = entry.password
	}
	if q.Verify {
		if err := d.passwords.verify(ctx, entry.password, q.Secret); err != nil {
			return Answer{}, err
		}
		answer.Verified = true
	}
	if len(entry.only) > 0 && !slices.Contains(entry.only, q.Service) && !slices.Contains(entry.only, q.Service.Protocol()) {
		answer.Refuse = "not permitted in the directory's file"
	}
	return answer, nil
}

func parseEntries(text string) (entries, error) {
	if text == "" {
		return nil, errEmptyFile
	}
	read := make(entries, strings.Count(text, "\n"))
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest := cutBlank(line)
		name = strings.ToLower(name)
		if _, twice := read[name]; twice {
			return nil, fmt.Errorf("line %d: %s is given twice", number, name)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
			return nil, fmt.Errorf("line %d: a control character", number)
		}
		if _, err := parseEntry(rest); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		read[name] = rest
	}
	return read, nil
}

// entry is what a line says of its name.
type entry struct {
	backend string
	user    string
	// password is what is stored of it, in a form of package passwords; "" is nobody's.
	password string
	only     []configs.Service // empty: all
}

func parseEntry(rest string) (e entry, err error) {
	e.backend, rest = cutBlank(rest)
	if e.backend == "" {
		return e, errors.New("no backend behind the name")
	}
	for rest != "" {
		var flag string
		flag, rest = cutBlank(rest)
		key, value, _ := strings.Cut(flag, "=")
		switch {
		case key == "user" && value != "":
			e.user = value
		case key == "password" && value != "":
			e.password = value
		case key == "only" && value != "":
			for name := range strings.SplitSeq(value, ",") {
				if !configs.Service(name).Known() {
					return e, fmt.Errorf("only: no service %q", name)
				}
				e.only = append(e.only, configs.Service(name))
			}
		default:
			return e, fmt.Errorf(`%q is not user=NAME, password=HASH or only=SERVICE, with a comma between services`, flag)
		}
	}
	return e, nil
}

// cutBlank returns the first word, and what follows the blanks behind it.
func cutBlank(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}
