package when

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for in, want := range map[string]string{
		"now": "2024-05-06 07:08:09", "@86400": "1970-01-02 00:00:00", "2020-01-02": "2020-01-02 00:00:00",
		"2020-01-02 03:04": "2020-01-02 03:04:00", "2020-01-02T03:04:05Z": "2020-01-02 03:04:05", "12:30": "2024-05-06 12:30:00",
		"yesterday": "2024-05-05 07:08:09", "2 hours ago": "2024-05-06 05:08:09", "+3 days": "2024-05-09 07:08:09", "1 week ago": "2024-04-29 07:08:09",
	} {
		got, err := Parse(in, now, time.UTC)
		if text := got.UTC().Format(time.DateTime); err != nil || text != want {
			t.Errorf("%s: got %s, %v, want %s", in, text, err, want)
		}
	}
	for _, in := range []string{"", "never", "ago", "3 parsecs", "@x"} {
		if got, err := Parse(in, now, time.UTC); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}
