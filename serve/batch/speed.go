package batch

import (
	"math"
	"math/bits"
	"time"
)

// A speed is what a model has shown of its speed: the seconds that a token takes in batches of up to 2^i tokens,
// of which the latest weigh most.
type speed [24]struct {
	perToken float64
	known    bool
}

func sizeClass(tokens int) int { return min(bits.Len(uint(max(1, tokens)-1)), len(speed{})-1) }

// add adds a batch.
func (s *speed) add(tokens int, seconds float64) {
	const weight = 0.25
	c := &s[sizeClass(tokens)]
	perToken := seconds / float64(max(1, tokens))
	if c.known {
		perToken = c.perToken + weight*(perToken-c.perToken)
	}
	c.perToken, c.known = perToken, true
}

// perToken returns the seconds of a token in batches of so many tokens, and whether any are known. A token does not
// take longer in a larger batch, so the best of the smaller sizes counts as well. That also keeps a batch that took
// very long once, because TensorFlow compiled something for its size, from being taken for the model's speed.
//
// For a size that has not run, the guess is a hopeful one, between a batch that takes no longer for more tokens and
// one that takes longer for each: a request that is refused wrongly could never show how fast the model is.
func (s *speed) perToken(tokens int) (seconds float64, known bool) {
	class := sizeClass(tokens)
	if !s[class].known {
		for i := class + 1; i < len(s); i++ {
			if s[i].known {
				return s[i].perToken, true
			}
		}
	}
	seconds = math.Inf(1)
	largest := 0
	for i := range s[:class+1] {
		if s[i].known {
			seconds, largest, known = min(seconds, s[i].perToken), i, true
		}
	}
	if !known {
		return 0, false
	}
	return seconds * math.Exp2(float64(largest-class)/2), true
}

// A stretch is how much longer requests take than was expected of them when they were admitted, because others came
// later and had their turns too. Sums of both times, faded, make long requests weigh more than short ones.
type stretch struct{ took, expected float64 }

func (s *stretch) add(took, expected float64) {
	const fade = 0.9
	s.took, s.expected = s.took*fade+took, s.expected*fade+expected
}

// factor is at least 1: a request that was quicker than expected is no promise to the next.
func (s *stretch) factor() float64 {
	if s.expected <= 0 {
		return 1
	}
	return max(1, s.took/s.expected)
}

// seconds returns the time of windows in full batches, which is 0 if the speed is not known.
func (b *Batcher) seconds(windows, tokens int) float64 {
	if windows <= 0 {
		return 0
	}
	length := max(1, tokens/windows)
	size := min(windows, b.opts.MaxSize)
	if b.opts.MaxTokens > 0 {
		size = min(size, max(1, b.opts.MaxTokens/length))
	}
	perToken, known := b.speed.perToken(size * length)
	if !known {
		return 0
	}
	return perToken * float64(tokens)
}

// clock advances the time that the model has worked, of which batches that run at once take equal parts, and
// returns it. b.mu is held.
func (b *Batcher) clock(now time.Duration) time.Duration {
	if b.running > 0 {
		b.worked += (now - b.workedAt) / time.Duration(b.running)
	}
	b.workedAt = now
	return b.worked
}

func duration(seconds float64) time.Duration {
	return time.Duration(min(seconds*1e9, math.MaxInt64/2))
}

// retryAfter rounds a time up to whole seconds, of which there is at least one.
func retryAfter(seconds float64) time.Duration {
	d := duration(seconds).Round(time.Millisecond) + time.Second - 1
	return max(time.Second, d.Truncate(time.Second))
}
