package main

import (
	"context"
	"net/url"
	"time"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/proxy"
)

// statusReport is the answer to GET /status.
type statusReport struct {
	Version   string                  `json:"version"`
	Process   int                     `json:"process"`
	Since     time.Time               `json:"since"` // when the process began
	Former    []formerProcess         `json:"former,omitempty"`
	Log       logReport               `json:"log"`
	Listening []listening             `json:"listening"`
	Sessions  map[string]sessionCount `json:"sessions"` // by service, of all processes
	Backends  []backends.BackendState `json:"backends"`
	Emptied   []emptied               `json:"emptied,omitempty"` // whose sessions are being ended
	Blocked   []proxy.Block           `json:"blocked"`
	Limits    []proxy.LimitState      `json:"limits"`
	Missing   []string                `json:"missing,omitempty"`
}

// formerProcess is one that has handed over, and keeps its sessions.
type formerProcess struct {
	Process  int `json:"process"`
	Sessions int `json:"sessions"`
}

type listening struct {
	Service configs.Service `json:"service"`
	Address string          `json:"address"`
}

// sessionCount counts sessions by state.
type sessionCount map[proxy.SessionState]int

// processBegun is when this process began.
var processBegun = time.Now()

func (o *operator) status(ctx context.Context, q url.Values) (any, error) {
	if err := only(q); err != nil {
		return nil, err
	}
	report := statusReport{
		Version: version(), Process: ownProcess, Since: processBegun.Round(0), Log: o.level.report(),
		Backends: o.router().States(), Emptied: o.emptying.list(),
		Blocked: append([]proxy.Block{}, o.server.Blocked()...), Limits: o.server.Limits(),
	}
	for _, one := range o.server.Addresses() {
		report.Listening = append(report.Listening, listening{one.Service, one.Address.String()})
	}
	all, missing := o.look(ctx, "", func(pid int, its overview) {
		report.Former = append(report.Former, formerProcess{pid, its.Total})
	})
	report.Sessions, report.Missing = all.States, missing
	return report, nil
}
