package squad_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// steveFeaturizer is the vocabulary of the smallest example.
func steveFeaturizer(t testing.TB) *squad.Featurizer {
	v, err := wordpiece.ReadVocab(strings.NewReader("[PAD]\n[UNK]\n[CLS]\n[SEP]\nwho\nsteve\nsmith\n'\ns\ndog\n"))
	require.NoError(t, err)
	return &squad.Featurizer{Tokenizer: &wordpiece.Tokenizer{Vocab: v}, MaxSeqLength: 12, MaxQueryLength: 8}
}

// windowsOf returns the features of one question.
func windowsOf(t testing.TB, f *squad.Featurizer, id, question, passage string) *squad.Windows {
	w, err := f.WindowsOf(&squad.Example{ID: id, Question: question, Words: squad.Words(passage)})
	require.NoError(t, err)
	return w
}

// decode decodes "who" asked of "Steve Smith's dog", which is
// [CLS] who [SEP] steve smith ' s dog [SEP] and three positions of padding.
func decode(t testing.TB, d squad.Decoder, start, end []float32) (squad.Prediction, error) {
	w := windowsOf(t, steveFeaturizer(t), "q1", "who", "Steve Smith's dog")
	require.Len(t, w.Features, 1)
	require.Equal(t, strings.Fields("[CLS] who [SEP] steve smith ' s dog [SEP]"), w.Features[0].Tokens())
	return d.Decode(w.Example, w.Features, []squad.RawResult{{UniqueID: 1000000000, StartLogits: start, EndLogits: end}})
}

// TestDecodeByHand has results of the reference's get_predictions.
func TestDecodeByHand(t *testing.T) {
	start := []float32{5, 0, 0, 3, 3, 1, 1, 1, 0, 0, 0, 0}
	end := []float32{5, 0, 0, 1, 3, 3, 1, 1, 0, 0, 0, 0}

	p, err := decode(t, squad.Decoder{NBestSize: 3}, start, end)
	require.NoError(t, err)
	assert.Equal(t, squad.Prediction{
		ID:     "q1",
		Answer: "Steve Smith",
		NBest: []squad.Candidate{
			{Text: "Steve Smith", Probability: 0.3333333333333333, StartLogit: 3, EndLogit: 3, EndWord: 1},
			{Text: "Steve Smith'", Probability: 0.3333333333333333, StartLogit: 3, EndLogit: 3, EndWord: 1},
			{Text: "Smith", Probability: 0.3333333333333333, StartLogit: 3, EndLogit: 3, StartWord: 1, EndWord: 1},
		},
	}, p)

	p, err = decode(t, squad.Decoder{NBestSize: 3, WithNegative: true}, start, end)
	require.NoError(t, err)
	assert.Equal(t, squad.Prediction{
		ID: "q1",
		NBest: []squad.Candidate{
			{Text: "", Probability: 0.9646631559719038, StartLogit: 5, EndLogit: 5, Window: -1, StartWord: -1, EndWord: -1},
			{Text: "Steve Smith", Probability: 0.017668422014048047, StartLogit: 3, EndLogit: 3, EndWord: 1},
			{Text: "Steve Smith'", Probability: 0.017668422014048047, StartLogit: 3, EndLogit: 3, EndWord: 1},
		},
		NullOdds: 4,
	}, p)

	// The comparison with the threshold is strict, and the best text wins even if "" ranks first.
	p, err = decode(t, squad.Decoder{NBestSize: 3, WithNegative: true, NullScoreDiffThreshold: 4}, start, end)
	require.NoError(t, err)
	assert.Equal(t, "Steve Smith", p.Answer)
	assert.Equal(t, 4.0, p.NullOdds)
}

func TestDecodeRules(t *testing.T) {
	none := make([]float32, 12)
	at := func(logits map[int]float32) []float32 {
		l := make([]float32, 12)
		for i, x := range logits {
			l[i] = x
		}
		return l
	}
	texts := func(p squad.Prediction) (texts []string) {
		for _, c := range p.NBest {
			texts = append(texts, c.Text)
		}
		return texts
	}
	for _, tt := range []struct {
		name       string
		d          squad.Decoder
		start, end []float32
		want       []string
	}{
		{"padding takes up places", squad.Decoder{NBestSize: 2}, at(map[int]float32{3: 1, 10: 3, 11: 2}),
			at(map[int]float32{4: 1}), []string{"empty"}},
		{"a place is left for the passage", squad.Decoder{NBestSize: 3}, at(map[int]float32{3: 1, 10: 3, 11: 2}),
			at(map[int]float32{4: 1}), []string{"Steve Smith"}},
		{"the question is no answer", squad.Decoder{NBestSize: 1}, at(map[int]float32{1: 9}), at(map[int]float32{1: 9}),
			[]string{"empty"}},
		{"the last [SEP] is no answer", squad.Decoder{NBestSize: 1}, at(map[int]float32{8: 9}), at(map[int]float32{8: 9}),
			[]string{"empty"}},
		{"the end is not before the start", squad.Decoder{NBestSize: 1}, at(map[int]float32{4: 9}), at(map[int]float32{3: 9}),
			[]string{"empty"}},
		{"length counts pieces", squad.Decoder{NBestSize: 1, MaxAnswerLength: 4}, at(map[int]float32{3: 9}),
			at(map[int]float32{7: 9}), []string{"empty"}},
		{"length is inclusive", squad.Decoder{NBestSize: 1, MaxAnswerLength: 5}, at(map[int]float32{3: 9}),
			at(map[int]float32{7: 9}), []string{"Steve Smith's dog"}},
		{"one entry more with negatives", squad.Decoder{NBestSize: 1, WithNegative: true}, at(map[int]float32{3: 9}),
			at(map[int]float32{3: 9}), []string{"Steve", ""}},
		{"equal scores keep the null entry last", squad.Decoder{NBestSize: 6, WithNegative: true},
			at(map[int]float32{0: 1, 3: 1}), at(map[int]float32{3: 0}),
			[]string{"Steve", "Steve Smith", "Steve Smith'", "", "Smith", "Smith'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := decode(t, tt.d, tt.start, tt.end)
			require.NoError(t, err)
			assert.Equal(t, tt.want, texts(p))
			assert.Empty(t, p.Warning)
		})
	}

	t.Run("logits of the tokens alone", func(t *testing.T) {
		p, err := decode(t, squad.Decoder{}, none[:9], none[:9])
		require.NoError(t, err)
		assert.Equal(t, "Steve", p.Answer)
	})
}

// TestDecodeWhereTheReferenceCrashes holds the behaviour that the reference does not define. The
// golden runs hold that there is no Warning elsewhere.
func TestDecodeWhereTheReferenceCrashes(t *testing.T) {
	null := squad.Candidate{Probability: 1, Window: -1, StartWord: -1, EndWord: -1}
	withNegative := squad.Decoder{NBestSize: 1, WithNegative: true, NullScoreDiffThreshold: 1e9}

	t.Run("null alone", func(t *testing.T) {
		logits := []float32{5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		p, err := decode(t, withNegative, logits, logits)
		require.NoError(t, err)
		null := null
		null.StartLogit, null.EndLogit = 5, 5
		assert.Equal(t, squad.Prediction{
			ID: "q1", NBest: []squad.Candidate{null}, NullOdds: 10,
			Warning: "no valid span among the best starts and ends: the reference scripts crash here",
		}, p)
	})
	for _, passage := range []string{"", "  \n", "\u200b \ufeff"} {
		w := windowsOf(t, steveFeaturizer(t), "q1", "who", passage)
		assert.Empty(t, w.Features)
		p, err := withNegative.Decode(w.Example, w.Features, nil)
		require.NoError(t, err)
		assert.Equal(t, squad.Prediction{
			ID: "q1", NBest: []squad.Candidate{null}, NullOdds: 1000000,
			Warning: "the passage has no word pieces: the reference scripts crash here",
		}, p)

		// Without negatives there is an answer for this.
		p, err = new(squad.Decoder).Decode(w.Example, w.Features, nil)
		require.NoError(t, err)
		empty := null
		empty.Text = "empty"
		assert.Equal(t, squad.Prediction{ID: "q1", Answer: "empty", NBest: []squad.Candidate{empty}}, p)
	}
}

func TestDecodeErrors(t *testing.T) {
	fine := make([]float32, 12)
	with := func(pos int, x float64) []float32 {
		l := make([]float32, 12)
		l[pos] = float32(x)
		return l
	}
	for _, tt := range []struct {
		name       string
		d          squad.Decoder
		start, end []float32
		want       string
	}{
		{"NaN", squad.Decoder{}, with(11, math.NaN()), fine,
			`decode question "q1", window 0: the start logit at position 11 is NaN`},
		{"infinite", squad.Decoder{}, fine, with(0, math.Inf(1)),
			`question "q1", window 0: the end logit at position 0 is +Inf`},
		{"too few", squad.Decoder{}, fine[:8], fine, `got 8 start logits for a feature of length 12 with 9 tokens`},
		{"too many", squad.Decoder{}, fine, make([]float32, 13),
			`got 13 end logits for a feature of length 12 with 9 tokens`},
		{"n_best_size", squad.Decoder{NBestSize: -1}, fine, fine, `n_best_size is -1: it must be at least 1`},
		{"max_answer_length", squad.Decoder{MaxAnswerLength: -1}, fine, fine,
			`max_answer_length is -1: it must be at least 1`},
		{"threshold", squad.Decoder{NullScoreDiffThreshold: math.NaN()}, fine, fine,
			`null_score_diff_threshold is NaN: it must be a number`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode(t, tt.d, tt.start, tt.end)
			assert.ErrorContains(t, err, tt.want)
		})
	}

	w := windowsOf(t, steveFeaturizer(t), "q1", "who", "Steve")
	_, err := new(squad.Decoder).Decode(w.Example, w.Features, nil)
	assert.EqualError(t, err, `decode question "q1": got 0 results for 1 features`)
	_, err = new(squad.Decoder).Decode(w.Example, w.Features,
		[]squad.RawResult{{UniqueID: 7, StartLogits: fine, EndLogits: fine}})
	assert.EqualError(t, err, `decode question "q1", window 0: got the result of feature 7, want that of 1000000000`)

	_, err = decode(t, squad.Decoder{}, fine, with(4, math.Inf(1)))
	var logit *squad.LogitError
	require.ErrorAs(t, err, &logit)
	assert.Equal(t, squad.LogitError{Row: "end", Position: 4, Value: float32(math.Inf(1))}, *logit)

	// What is smaller than every other number is in order.
	p, err := decode(t, squad.Decoder{}, with(3, math.Inf(-1)), fine)
	require.NoError(t, err)
	assert.Equal(t, "Smith", p.Answer)
}
