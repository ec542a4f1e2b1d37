package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"jackdaw/configs"
	"jackdaw/tlsstore"
)

// certsFilter says which certificates are asked for; the zero value asks for all.
type certsFilter struct {
	Name     string // a pattern, or a name: then also wildcards that cover it
	Expiring span   // how soon; 0: whenever
	Problems bool   // only those that have some
}

// wanted makes the test whether a certificate is asked for at that time.
func (f certsFilter) wanted(now time.Time) func(c tlsstore.Certificate) bool {
	fits, end := nameTest(f.Name), now.Add(time.Duration(f.Expiring))
	return func(c tlsstore.Certificate) bool {
		return (f.Name == "" || slices.ContainsFunc(c.Names, fits)) &&
			(f.Expiring == 0 || c.Serving && c.NotAfter.Before(end)) &&
			(!f.Problems || len(c.Problems) > 0 || c.Serving && c.Reason != "") // although its files no longer hold it
	}
}

// certain tells whether certain certificates are asked for, so that files without any are of no interest.
func (f certsFilter) certain() bool { return f.Name != "" || f.Expiring != 0 }

// expectant tells whether there ought to be a certificate that is asked for.
func (f certsFilter) expectant() bool { return f.Expiring == 0 && !f.Problems }

// nameTest makes the test whether a certificate's name is one that is asked for.
func nameTest(wanted string) func(name string) bool {
	if name, err := configs.DNSName(wanted); err == nil {
		_, parent, _ := strings.Cut(name, ".")
		return func(s string) bool { return s == name || s == "*."+parent }
	}
	pattern := strings.ToLower(wanted)
	return func(s string) bool { return configs.Match(pattern, s) }
}

// query is the filter on its way to the daemon.
func (f certsFilter) query() url.Values {
	query := make(url.Values)
	if f.Name != "" {
		query.Set("name", f.Name)
	}
	if f.Expiring != 0 {
		query.Set("expiring", f.Expiring.String())
	}
	if f.Problems {
		query.Set("problems", "true")
	}
	return query
}

// parseFilter reads what query has written.
func parseFilter(query url.Values) (f certsFilter, err error) {
	f.Name = query.Get("name")
	if query.Has("expiring") {
		err = f.Expiring.Set(query.Get("expiring"))
	}
	if query.Has("problems") && err == nil {
		f.Problems, err = strconv.ParseBool(query.Get("problems"))
	}
	return f, err
}

// span is a time to come, as a flag: in days, or as package time writes it.
type span time.Duration

func (s span) String() string {
	if s == 0 {
		return ""
	}
	return time.Duration(s).String()
}

// Type is what the usage calls the value.
func (s span) Type() string { return "time" }

// Set reads "14d", "36h" and the like.
func (s *span) Set(text string) error {
	d, err := parseTime(text)
	if err == nil && d == 0 {
		err = errors.New("no certificate expires within no time")
	}
	if err == nil {
		*s = span(d)
	}
	return err
}

// period is for how long something holds, as a flag, written as a span is; it may be none.
type period time.Duration

func (p period) String() string { return time.Duration(p).String() }

// Type is what the usage calls the value.
func (p period) Type() string { return "time" }

// Set reads "14d", "36h" and the like.
func (p *period) Set(text string) error {
	d, err := parseTime(text)
	if err == nil {
		*p = period(d)
	}
	return err
}

// parseTime reads a time that is not negative, in days, or as package time writes it.
func parseTime(text string) (time.Duration, error) {
	const longest = 100 * 365 // days
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 32)
		if err == nil && days <= longest {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf(`%q is no time such as "14d" or "36h"`, text)
}
