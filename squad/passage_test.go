package squad_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

func TestPassage(t *testing.T) {
	p := squad.NewPassage(" a\t🦉bé \u202f ç\n")
	assert.Equal(t, []string{"a", "🦉bé", "ç"}, p.Words)
	start, end := p.Span(0, 1)
	assert.Equal(t, []int{1, 6}, []int{start, end})
	start, end = p.Span(2, 2)
	assert.Equal(t, []int{9, 10}, []int{start, end})
	for _, tt := range []struct {
		c          squad.Candidate
		start, end int
		ok         bool
	}{
		{squad.Candidate{Text: "bé", StartWord: 1, EndWord: 1, Offset: 4}, 4, 6, true},
		{squad.Candidate{Text: "🦉bé ç", StartWord: 1, EndWord: 2}, 3, 10, true},
		{squad.Candidate{Text: "ç", StartWord: 1, EndWord: 2, Offset: 8}, 9, 10, true},
		{squad.Candidate{}, 0, 0, false},
		{squad.Candidate{Text: "empty", Window: -1, StartWord: -1, EndWord: -1}, 0, 0, false},
	} {
		start, end, ok := p.Locate(&tt.c)
		assert.Equal(t, []any{tt.start, tt.end, tt.ok}, []any{start, end, ok}, "%+v", tt.c)
	}
}

// Each text of a real passage is where Locate finds it, for any logits.
func TestLocateFindsEveryCandidate(t *testing.T) {
	for _, name := range []string{"v1.s128.lower", "v1.s64.cased", "v2.s128.lower", "google.s128", "nv2006.s128"} {
		g := miniGolden(t, name)
		file, err := os.Open(g.data)
		require.NoError(t, err)
		defer file.Close()
		answerer := &squad.Answerer{Featurizer: *g.featurizer(t), Decoder: *g.decoder(),
			Predictor: anything{rand.New(rand.NewPCG(1, 2))}}
		found := 0
		for paragraph, err := range squad.Paragraphs(file) {
			require.NoError(t, err)
			passage, text := squad.NewPassage(paragraph.Context), []rune(paragraph.Context)
			for _, q := range paragraph.QAs {
				p, err := answerer.Answer(t.Context(), q.Question, paragraph.Context)
				require.NoError(t, err)
				for _, c := range p.NBest {
					start, end, ok := passage.Locate(&c)
					require.Equal(t, c.Window >= 0, ok)
					if ok {
						require.Equal(t, c.Text, strings.Join(squad.Words(string(text[start:end])), " "))
						found++
					}
				}
			}
		}
		assert.Greater(t, found, 100, name)
	}
}

// anything is a model that finds answers anywhere.
type anything struct{ *rand.Rand }

func (a anything) Predict(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	var results []squad.RawResult
	for i := range features {
		r := squad.RawResult{UniqueID: features[i].UniqueID}
		for range features[i].Len {
			r.StartLogits = append(r.StartLogits, float32(a.NormFloat64()))
			r.EndLogits = append(r.EndLogits, float32(a.NormFloat64()))
		}
		results = append(results, r)
	}
	return results, nil
}

func TestMerge(t *testing.T) {
	one := func(text string, window int, score float64) squad.Candidate {
		return squad.Candidate{Text: text, Window: window, StartWord: window, EndWord: window, StartLogit: score, EndLogit: 0}
	}
	null := func(score float64) squad.Candidate { return one("", -1, score) }
	text := func(text string, score float64) squad.Candidate { return one(text, 0, score) }
	empty := one("empty", -1, 0)
	for _, tt := range []struct {
		name    string
		d       squad.Decoder
		lists   [][]squad.Candidate
		answer  string
		texts   []string
		of      []int
		odds    float64
		warning bool
	}{
		{"the best of each", squad.Decoder{}, [][]squad.Candidate{{text("a", 3), text("b", 1)}, {text("c", 2)}}, "a",
			[]string{"a", "c", "b"}, []int{0, 1, 0}, 0, false},
		{"equal texts of two passages", squad.Decoder{}, [][]squad.Candidate{{text("a", 1)}, {text("a", 2)}}, "a",
			[]string{"a", "a"}, []int{1, 0}, 0, false},
		{"no more than asked for", squad.Decoder{NBestSize: 2},
			[][]squad.Candidate{{text("a", 3), text("b", 2)}, {text("c", 1)}}, "a", []string{"a", "b"}, []int{0, 0}, 0, false},
		{"a passage without any", squad.Decoder{}, [][]squad.Candidate{{empty}, {text("a", -9)}}, "a", []string{"a"},
			[]int{1}, 0, false},
		{"no passage with any", squad.Decoder{}, [][]squad.Candidate{{empty}, {empty}}, "empty", []string{"empty"}, []int{-1},
			0, false},
		{"the least null", squad.Decoder{WithNegative: true},
			[][]squad.Candidate{{text("a", 3), null(4)}, {text("b", 5), null(2)}}, "b", []string{"b", "a", ""}, []int{1, 0, -1},
			-3, false},
		{"no answer", squad.Decoder{WithNegative: true},
			[][]squad.Candidate{{text("a", 3), null(4)}, {text("b", 1), null(9)}}, "", []string{"", "a", "b"}, []int{-1, 0, 1},
			1, false},
		{"null beyond the list", squad.Decoder{WithNegative: true, NBestSize: 1},
			[][]squad.Candidate{{text("a", 3), null(2)}, {text("b", 4), null(2)}}, "b", []string{"b", ""}, []int{1, -1}, -2,
			false},
		{"null within the list", squad.Decoder{WithNegative: true, NBestSize: 2},
			[][]squad.Candidate{{null(4), text("a", 3)}, {text("b", 2), null(9)}}, "", []string{"", "a"}, []int{-1, 0}, 1,
			false},
		{"null alone", squad.Decoder{WithNegative: true}, [][]squad.Candidate{{null(4)}, {null(3)}}, "", []string{""},
			[]int{-1}, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var predictions []squad.Prediction
			for _, list := range tt.lists {
				predictions = append(predictions, squad.Prediction{ID: "q", NBest: list})
			}
			p, of := tt.d.Merge(predictions)
			var texts []string
			sum := 0.0
			for _, c := range p.NBest {
				texts, sum = append(texts, c.Text), sum+c.Probability
			}
			assert.Equal(t, tt.texts, texts)
			assert.Equal(t, tt.of, of)
			assert.Equal(t, tt.answer, p.Answer)
			assert.Equal(t, tt.odds, p.NullOdds)
			assert.Equal(t, tt.warning, p.Warning != "")
			assert.InDelta(t, 1, sum, 1e-12)
		})
	}
}

// One passage merged is itself, whatever is in it.
func TestMergeOfOne(t *testing.T) {
	for _, name := range []string{"v1.s128.lower", "v2.s128.lower"} {
		g := miniGolden(t, name)
		a := &squad.Answerer{Featurizer: *g.featurizer(t), Decoder: *g.decoder(),
			Predictor: anything{rand.New(rand.NewPCG(3, 4))}}
		for p, err := range a.AnswerAll(t.Context(), g.examples(t)) {
			require.NoError(t, err)
			merged, _ := a.Decoder.Merge([]squad.Prediction{p})
			require.Equal(t, p, merged)
		}
	}
}

func TestMaxWindows(t *testing.T) {
	f := &squad.Featurizer{Tokenizer: &wordpiece.Tokenizer{Vocab: bertVocab(t)}, MaxSeqLength: 100, DocStride: 10,
		MaxWindows: 5}
	windows := func(words int) error {
		ex := &squad.Example{ID: "long", Question: "what?", Words: strings.Fields(strings.Repeat("a ", words))}
		_, err := f.WindowsOf(ex)
		return err
	}
	room := 100 - 2 - 3
	assert.NoError(t, windows(room+40))
	err := windows(room + 41)
	assert.EqualError(t, err, `question "long": the passage makes 6 windows, more than 5`)
	var many *squad.TooManyWindowsError
	require.ErrorAs(t, err, &many)
	assert.Equal(t, 6, many.Windows)
}
