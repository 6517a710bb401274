package squad

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/wordpiece"
)

// plainNBest is the n-best list in the plainest way, that of the reference scripts: all spans of all windows in
// one list.
func plainNBest(d Decoder, ex *Example, features []Feature, results []RawResult) []Candidate {
	type ranked struct {
		Candidate
		feature  *Feature
		from, to int32
	}
	var spans []ranked
	null, low := noText("", 0, 0), noScore
	n, most := d.nBestSize(), cmp.Or(d.MaxAnswerLength, DefaultMaxAnswerLength)
	for i := range features {
		f, r := &features[i], &results[i]
		if c := noText("", float64(r.StartLogits[0]), float64(r.EndLogits[0])); c.score() < low {
			null, low = c, c.score()
		}
		for _, s := range topN(nil, r.StartLogits, n) {
			for _, e := range topN(nil, r.EndLogits, n) {
				_, inside := f.TokenToOrig(int(e))
				if f.MaxContext(int(s)) && inside && e >= s && int(e-s) < most {
					c := Candidate{StartLogit: float64(r.StartLogits[s]), EndLogit: float64(r.EndLogits[e]), Window: i}
					spans = append(spans, ranked{c, f, s, e})
				}
			}
		}
	}
	if d.WithNegative && len(features) > 0 {
		spans = append(spans, ranked{Candidate: null})
	}
	slices.SortStableFunc(spans, func(a, b ranked) int { return cmp.Compare(b.score(), a.score()) })
	var list []Candidate
	seen := map[string]bool{}
	for _, s := range spans {
		if len(list) == n {
			break
		}
		c := s.Candidate
		if s.from > 0 {
			c.StartWord, _ = s.feature.TokenToOrig(int(s.from))
			c.EndWord, _ = s.feature.TokenToOrig(int(s.to))
			t := s.feature.doc.tokenizer
			c.Text, c.Offset = finalText(joinPieces(t.Vocab, s.feature.InputIDs[s.from:s.to+1]),
				strings.Join(ex.Words[c.StartWord:c.EndWord+1], " "), t)
			if seen[c.Text] {
				continue
			}
		}
		seen[c.Text] = true
		list = append(list, c)
	}
	if d.WithNegative && !seen[""] {
		list = append(list, null)
	}
	if len(list) == 0 {
		list = append(list, noText(emptyAnswer, 0, 0))
	}
	setProbabilities(list)
	return list
}

// After every window the list is, to the last bit, that of all windows so far at once.
func TestDecodingIsThatOfAllWindowsAtOnce(t *testing.T) {
	vocab, err := wordpiece.ReadVocab(strings.NewReader("[PAD]\n[UNK]\n[CLS]\n[SEP]\nwho\na\nb\n##b\nc\n'\n.\n"))
	require.NoError(t, err)
	lists := 0
	for seed := range uint64(600) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		f := Featurizer{
			Tokenizer: &wordpiece.Tokenizer{Vocab: vocab}, MaxSeqLength: 10 + rnd.IntN(20), MaxQueryLength: 3,
			DocStride: 1 + rnd.IntN(8),
		}
		words := make([]string, rnd.IntN(40))
		for i := range words {
			words[i] = []string{"a", "b", "ab", "C", "a.", "b'c", "B", "cbb"}[rnd.IntN(8)]
		}
		w, err := f.WindowsOf(&Example{ID: "q", Question: "who a", Words: words})
		require.NoError(t, err)
		d := Decoder{NBestSize: 1 + rnd.IntN(30), MaxAnswerLength: 1 + rnd.IntN(6), WithNegative: seed%2 == 0}
		values := 2 + rnd.IntN(10) // few, so that many scores are equal
		logits := func() []float32 {
			l := make([]float32, f.MaxSeqLength)
			for i := range l {
				if l[i] = float32(rnd.IntN(values)); rnd.IntN(50) == 0 {
					l[i] = float32(math.Inf(-1))
				}
			}
			return l
		}
		g := d.Begin(w.Example)
		var results []RawResult
		check := func() {
			want := plainNBest(d, w.Example, w.Features[:len(results)], results)
			got := g.Prediction().NBest
			// Of an infinite score the probability may not be a number, which does not equal itself.
			require.Equal(t, fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got), "seed %d, window %d", seed, len(results))
			lists++
		}
		check()
		for i := range w.Features {
			r := RawResult{UniqueID: w.Features[i].UniqueID, StartLogits: logits(), EndLogits: logits()}
			results = append(results, r)
			require.NoError(t, g.Add(&w.Features[i], &r))
			check()
		}
		whole, err := d.Decode(w.Example, w.Features, results)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("%+v", whole), fmt.Sprintf("%+v", g.Prediction()))
	}
	assert.Greater(t, lists, 3000)
}
