package main

import (
	"fmt"
	"math"
	"strings"

	"jackdaw/integration/measure"
)

// The machine for which figures are worked out.
const (
	machineCores  = 16
	machineMemory = 64 << 20 // in KiB
	machines      = 100
)

// capacity works out from the figures what larger machines hold: a table in Markdown, or nothing where a figure is missing.
func (r *report) capacity() string {
	figure := func(key string) float64 {
		for _, row := range r.Rows {
			if row.Key == key {
				return measure.Median(row.Values[r.ours()])
			}
		}
		return math.NaN()
	}
	session := figure("idle-8000 used") + max(0, figure("idle-8000 kernel"))
	logins := 1e6 / figure("login-imaps")
	var b strings.Builder
	writeRow(&b, []string{r.ours(), "1 processor", fmt.Sprintf("%d processors, 64 GiB *", machineCores),
		fmt.Sprintf("%d such machines *", machines)})
	writeRow(&b, []string{"---", "---:", "---:", "---:"})
	for _, line := range []struct {
		about string
		value float64
	}{
		{"logins with full handshakes, each second", logins},
		{"resumed handshakes, each second", 1e6 / figure("hs-resumed")},
		{"small questions and answers, each second", 1e6 / figure("noop-64")},
		{"download, GB each second", 1e3 / figure("down-8")},
		{"upload, GB each second", 1e3 / figure("up-8")},
	} {
		if math.IsNaN(line.value) {
			return ""
		}
		writeRow(&b, []string{line.about, round(line.value), round(line.value * machineCores), round(line.value * machineCores * machines)})
	}
	if math.IsNaN(session) {
		return ""
	}
	sessions := machineMemory / session
	writeRow(&b, []string{fmt.Sprintf("sessions at rest, of %.1f KiB with the kernel's share", session), "",
		round(sessions), round(sessions * machines)})
	writeRow(&b, []string{"- until all of them have come back, s", "", round(sessions / logins / machineCores),
		round(sessions / logins / machineCores)})
	b.WriteString("\n\\* Extrapolated: the first column times the number of processors, and memory by the session. Nobody has measured it.\n")
	return b.String()
}

// round writes two digits that count, with thousands apart.
func round(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	power := math.Pow(10, math.Floor(math.Log10(v))-1)
	digits := fmt.Sprintf("%.0f", math.Round(v/power)*power)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
