package squad

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWindows compares the spans and the max-context rule with the loops of
// convert_examples_to_features and _check_is_max_context.
func TestWindows(t *testing.T) {
	for _, length := range []int{1, 2, 7, 50, 109, 213, 300, 380} {
		for _, stride := range []int{1, 3, 48, 64, 100, 128, 500} {
			for _, total := range []int{0, 1, 2, 7, 8, 49, 50, 51, 112, 113, 150, 300, 309, 399, 400, 401, 413} {
				w := windows{total, length, min(length, stride)}
				var want []docSpan
				for start := 0; start < total; start += min(length, stride) {
					s := docSpan{start, min(total-start, length)}
					want = append(want, s)
					if start+s.length == total {
						break
					}
				}
				require.Equal(t, len(want), w.count(), "%+v", w)
				for i, s := range want {
					start, length := w.span(i)
					require.Equal(t, s, docSpan{start, length}, "%+v window %d", w, i)
				}
				for pos := range total {
					require.Equal(t, bestSpan(want, pos), w.best(pos), "%+v piece %d", w, pos)
				}
			}
		}
	}
}

type docSpan struct{ start, length int }

func bestSpan(spans []docSpan, pos int) int {
	best, bestScore := -1, 0.0
	for i, s := range spans {
		end := s.start + s.length - 1
		if pos < s.start || pos > end {
			continue
		}
		product := 0.01 * float64(s.length)
		score := float64(min(pos-s.start, end-pos)) + float64(product)
		if best < 0 || score > bestScore {
			best, bestScore = i, score
		}
	}
	return best
}
