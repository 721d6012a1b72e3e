// Package when reads points in time as people write them.
package when

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parse understands @seconds, the usual ISO and RFC forms, and words such as
// "now", "yesterday", "2 hours ago" and "+3 days".
func Parse(s string, now time.Time, zone *time.Location) (time.Time, error) {
	if text, ok := strings.CutPrefix(s, "@"); ok {
		v, err := strconv.ParseFloat(text, 64)
		return time.Unix(0, int64(v*1e9)), err
	}
	if t, ok := relative(s, now); ok {
		return t, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02",
		time.RFC1123Z, time.RFC1123, time.UnixDate, "20060102", "15:04:05", "15:04",
	} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			if t.Year() == 0 {
				y, m, d := now.In(zone).Date()
				t = t.AddDate(y, int(m)-1, d-1)
			}
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot understand the time %q", s)
}

func relative(s string, now time.Time) (time.Time, bool) {
	sign := 1
	words := strings.Fields(strings.ToLower(s))
	if n := len(words); n > 1 && words[n-1] == "ago" {
		sign, words = -1, words[:n-1]
	}
	if len(words) == 1 {
		days, ok := map[string]int{"now": 0, "today": 0, "yesterday": -1, "tomorrow": 1}[words[0]]
		return now.AddDate(0, 0, days), ok && sign == 1
	}
	if len(words) != 2 {
		return now, false
	}
	n, err := strconv.Atoi(words[0])
	if err != nil {
		return now, false
	}
	n *= sign
	switch strings.TrimSuffix(words[1], "s") {
	case "sec", "second":
		return now.Add(time.Duration(n) * time.Second), true
	case "min", "minute":
		return now.Add(time.Duration(n) * time.Minute), true
	case "hour":
		return now.Add(time.Duration(n) * time.Hour), true
	case "day":
		return now.AddDate(0, 0, n), true
	case "week":
		return now.AddDate(0, 0, 7*n), true
	case "month":
		return now.AddDate(0, n, 0), true
	case "year":
		return now.AddDate(n, 0, 0), true
	}
	return now, false
}
