package rng

import "time"

// limiter is a token bucket that holds one second's worth of bytes.
type limiter struct {
	rate   float64 // bytes per second; 0 is no limit
	tokens float64
	last   time.Time
}

func newLimiter(rate int, now time.Time) limiter {
	return limiter{rate: float64(rate), tokens: float64(rate), last: now}
}

// take grants up to n bytes. When it can grant none it says when to come again.
func (l *limiter) take(now time.Time, n int) (granted int, wait time.Duration) {
	if l.rate == 0 {
		return n, 0
	}
	if dt := now.Sub(l.last).Seconds(); dt > 0 {
		l.tokens = min(l.tokens+dt*l.rate, l.rate)
		l.last = now
	}
	granted = min(n, int(l.tokens))
	l.tokens -= float64(granted)
	if granted == 0 && n > 0 {
		// Enough for a small request, so that waking is worth it.
		need := min(float64(min(n, 64)), l.rate) - l.tokens
		wait = max(time.Duration(need/l.rate*float64(time.Second)), time.Millisecond)
	}
	return granted, wait
}
