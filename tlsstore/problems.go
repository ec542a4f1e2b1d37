package tlsstore

import (
	"time"

	"go.uber.org/zap"
)

// problems holds at most one problem for each file, pair or directory, so that each is logged once.
type problems map[any]Problem

// set takes note of a problem, or of its end if there is no text.
func (ps problems) set(log *zap.Logger, about any, p Problem) {
	if p.Text == "" {
		delete(ps, about)
		return
	}
	if ps[about] != p {
		log.Warn("certificate problem", zap.String("file", p.File), zap.String("problem", p.Text))
	}
	ps[about] = p
}

// describe looks at the problems of all that was settled.
func (r *registry) describe(now time.Time) {
	excused := make(map[*file]bool) // one warning for a pair is enough
	for p := range r.kept {
		excused[p.chain], excused[p.key] = true, true
		for _, s := range p.sources {
			excused[s.file] = true
		}
	}
	for p := range r.concerned() {
		r.found.set(r.log, p, r.problemOfPair(p, excused, now))
	}
	for f := range r.files {
		r.found.set(r.log, f, r.problemOfFile(f, excused))
	}
	r.files = make(map[*file]bool)
	r.describePlaces()
}

// describePlaces looks at the problems of directories, and at the default.
func (r *registry) describePlaces() {
	if r.searched {
		for about := range r.found {
			if d, ok := about.(*dir); ok && r.tree.dirs[d.real] != d {
				delete(r.found, d)
			}
		}
	}
	for _, d := range r.tree.entered {
		r.found.set(r.log, d, Problem{d.path, d.problem})
	}
	var missing Problem
	if d := r.cfg.Default; d != nil && *d != "" && len(r.index.lookup(indexed(*d)).pairs) == 0 {
		missing.Text = "no certificate for the default name " + *d
	}
	r.found.set(r.log, "default", missing)
}

// concerned returns the pairs that were settled, and those that share a name with them: one supersedes the other. After a
// search it is all pairs, for time goes on.
func (r *registry) concerned() map[*pair]bool {
	concerned := make(map[*pair]bool)
	if r.searched {
		for _, p := range r.pairs {
			concerned[p] = true
		}
	}
	for p := range r.proposed {
		concerned[p] = true
		for _, name := range p.names {
			for _, q := range r.index.with(name) {
				concerned[q] = true
			}
		}
	}
	return concerned
}

func (r *registry) problemOfPair(p *pair, excused map[*file]bool, now time.Time) Problem {
	switch {
	case p.kept != nil:
		return Problem{p.chain.path(), p.kept.why}
	case p.listed:
		return Problem{p.chain.path(), r.complaint(p, now)}
	case len(p.sources) > 0 && !excused[p.sources[0].file]:
		return Problem{p.sources[0].file.path(), r.want(p)}
	}
	return Problem{}
}

func (r *registry) problemOfFile(f *file, excused map[*file]bool) Problem {
	switch {
	case excused[f], f.gone && !f.missed():
		return Problem{}
	case f.broken:
		return Problem{f.path(), r.faults[f]}
	}
	for _, id := range f.has().keys {
		if r.rings[id].listed == 0 {
			return Problem{f.path(), "no certificate for the private key"}
		}
	}
	return Problem{}
}

// complaint joins the defects of a certificate that is complete. A superseded one may be as bad as it likes.
func (r *registry) complaint(p *pair, now time.Time) string {
	text := ""
	for _, defect := range r.defects(p, now) {
		if text != "" {
			text += "; "
		}
		text += defect
	}
	return text
}

func (r *registry) defects(p *pair, now time.Time) (list []string) {
	if len(p.names) == 0 {
		return []string{"the certificate has no DNS name among its subject alternative names, which are all that clients look at"}
	}
	if r.index.superseded(p, now) != nil {
		return nil
	}
	about := "the certificate of " + describeNames(p.names)
	switch {
	case p.from > now.Unix():
		list = append(list, about+" is not valid before "+day(p.notBefore()))
	case p.until < now.Unix():
		list = append(list, about+" expired on "+day(p.notAfter()))
	}
	if p.kind.weak != "" {
		list = append(list, about+": "+p.kind.weak)
	}
	if p.lone && p.public && !r.scanner.parser.authorities.knows(p.kind.subject) {
		list = append(list, about+" lacks the intermediate certificate of its issuer, "+p.kind.issuer+
			": put it behind the certificate, or into a file of its own beside it")
	}
	return list
}
