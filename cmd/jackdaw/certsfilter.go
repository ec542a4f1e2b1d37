package main

import (
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
}

// wants tells whether a certificate is asked for.
func (f certsFilter) wants(c tlsstore.Certificate, now time.Time) bool {
	return (f.Name == "" || slices.ContainsFunc(c.Names, f.fits)) &&
		(f.Expiring == 0 || c.Serving && c.NotAfter.Before(now.Add(time.Duration(f.Expiring))))
}

// fits compares a certificate's name with what is asked for.
func (f certsFilter) fits(name string) bool {
	wanted := strings.ToLower(f.Name)
	if ascii, err := configs.DNSName(wanted); err == nil {
		_, parent, _ := strings.Cut(ascii, ".")
		return name == ascii || name == "*."+parent
	}
	return configs.Match(wanted, name)
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
	return query
}

// parseFilter reads what query has written.
func parseFilter(query url.Values) (f certsFilter, err error) {
	f.Name = query.Get("name")
	if query.Has("expiring") {
		err = f.Expiring.Set(query.Get("expiring"))
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
	const longest = 100 * 365 // days
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 32)
		if err == nil && 0 < days && days <= longest {
			*s = span(days) * span(24*time.Hour)
			return nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		*s = span(d)
		return nil
	}
	return fmt.Errorf(`%q is no time such as "14d" or "36h"`, text)
}
