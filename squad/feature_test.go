package squad_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

func TestGoldenFeatures(t *testing.T) {
	for _, name := range []string{"v1.s384.lower", "v1.s128.lower", "v1.s64.cased", "v2.s128.lower", "google.s128",
		"nv2006.s128"} {
		t.Run(name, func(t *testing.T) {
			g := miniGolden(t, name)
			lines := bufio.NewReader(bytes.NewReader(gunzip(t, g.base+".features.jsonl.gz")))
			n := 0
			for f, err := range g.featurizer(t).Features(g.examples(t)) {
				require.NoError(t, err)
				line, err := lines.ReadBytes('\n')
				require.NoError(t, err)
				assertFeature(t, line, f)
				n++
			}
			assert.Equal(t, g.Features, n)
			_, err := lines.Peek(1)
			assert.Equal(t, io.EOF, err)
		})
	}
}

// assertFeature compares every field of f with the reference's.
func assertFeature(t *testing.T, line []byte, f *squad.Feature) {
	t.Helper()
	var want struct {
		UniqueID          int32        `json:"unique_id"`
		ExampleIndex      int          `json:"example_index"`
		DocSpanIndex      int          `json:"doc_span_index"`
		Tokens            []string     `json:"tokens"`
		TokenToOrigMap    map[int]int  `json:"token_to_orig_map"`
		TokenIsMaxContext map[int]bool `json:"token_is_max_context"`
		InputIDs          []int32      `json:"input_ids"`
		InputMask         []int32      `json:"input_mask"`
		SegmentIDs        []int32      `json:"segment_ids"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&want))
	require.Equal(t, want.UniqueID, f.UniqueID)
	require.Equal(t, want.ExampleIndex, f.ExampleIndex)
	require.Equal(t, want.DocSpanIndex, f.DocSpanIndex)
	require.Equal(t, want.Tokens, f.Tokens())
	require.Equal(t, len(want.Tokens), f.Len)
	require.Equal(t, want.InputIDs, f.InputIDs)
	require.Equal(t, want.InputMask, f.InputMask)
	require.Equal(t, want.SegmentIDs, f.SegmentIDs)
	orig, maxContext := map[int]int{}, map[int]bool{}
	for pos := -1; pos <= len(f.InputIDs); pos++ {
		word, ok := f.TokenToOrig(pos)
		if !ok {
			require.False(t, f.MaxContext(pos))
			continue
		}
		orig[pos], maxContext[pos] = word, f.MaxContext(pos)
	}
	require.Equal(t, want.TokenToOrigMap, orig)
	require.Equal(t, want.TokenIsMaxContext, maxContext)
}

func TestFeaturizerDefaults(t *testing.T) {
	f := &squad.Featurizer{Tokenizer: steveFeaturizer(t).Tokenizer}
	w := windowsOf(t, f, "q", "who", strings.Repeat("dog ", 400))
	require.Len(t, w.Features, 2)
	assert.Len(t, w.Features[0].InputIDs, 384)
	for i, want := range [][2]int{{0, 380}, {128, 272}} {
		assert.Equal(t, want, [2]int{w.Features[i].DocStart, w.Features[i].DocLength})
	}

	w = windowsOf(t, f, "q", strings.Repeat("who ", 100), "dog")
	assert.Equal(t, 64+4, w.Features[0].Len)
}

func TestFeaturizerCheck(t *testing.T) {
	vocab := func(text string) *wordpiece.Tokenizer {
		v, err := wordpiece.ReadVocab(strings.NewReader(text))
		require.NoError(t, err)
		return &wordpiece.Tokenizer{Vocab: v}
	}
	good := steveFeaturizer(t).Tokenizer
	for _, tt := range []struct {
		name string
		f    squad.Featurizer
		want string
	}{
		{"no tokenizer", squad.Featurizer{}, "the featurizer has no tokenizer with a vocabulary"},
		{"no vocabulary", squad.Featurizer{Tokenizer: &wordpiece.Tokenizer{}},
			"the featurizer has no tokenizer with a vocabulary"},
		{"query too long", squad.Featurizer{Tokenizer: good, MaxSeqLength: 67},
			"max_seq_length 67 leaves no room for the passage: it must be more than max_query_length 64 + 3; lower " +
				"max_query_length"},
		{"negative query", squad.Featurizer{Tokenizer: good, MaxQueryLength: -1},
			"max_query_length is -1: it must be at least 1"},
		{"negative length", squad.Featurizer{Tokenizer: good, MaxSeqLength: -1}, "max_seq_length -1 leaves no room"},
		{"negative stride", squad.Featurizer{Tokenizer: good, DocStride: -1}, "doc_stride is -1: it must be at least 1"},
		{"no [CLS]", squad.Featurizer{Tokenizer: vocab("[PAD]\n[UNK]\n[SEP]")},
			"the vocabulary has no [CLS]: it is not the vocabulary of a BERT model"},
		{"no [SEP]", squad.Featurizer{Tokenizer: vocab("[PAD]\n[UNK]\n[CLS]")}, "the vocabulary has no [SEP]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.ErrorContains(t, tt.f.Check(), tt.want)
			for _, err := range tt.f.Features(new(squad.Dataset).Examples()) {
				assert.ErrorContains(t, err, tt.want)
			}
		})
	}
	assert.NoError(t, (&squad.Featurizer{Tokenizer: good, MaxSeqLength: 68}).Check())
}

// TestWindowsAllocateLittle holds that a window costs a fixed number of allocations.
func TestWindowsAllocateLittle(t *testing.T) {
	f := steveFeaturizer(t)
	passage := &squad.Paragraph{Context: strings.Repeat("dog ", 1000)}
	for i := range 100 {
		passage.QAs = append(passage.QAs, squad.Question{ID: strconv.Itoa(i), Question: "who"})
	}
	d := &squad.Dataset{Articles: []squad.Article{{Paragraphs: []squad.Paragraph{*passage}}}}
	windows := 0
	allocs := testing.AllocsPerRun(3, func() {
		windows = 0
		for _, err := range f.Features(d.Examples()) {
			require.NoError(t, err)
			windows++
		}
	})
	assert.Equal(t, 100*125, windows)
	assert.Less(t, allocs, float64(windows)/10)
}

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		context string
		want    []string
	}{
		{"", nil},
		{" \t\r\n\u202f", nil},
		{"a b\tc\rd\ne\u202ff", []string{"a", "b", "c", "d", "e", "f"}},
		{"  two  spaces ", []string{"two", "spaces"}},
		{"a\u00a0b\u2009c\u3000d\ve\ff\u0085g", []string{"a\u00a0b\u2009c\u3000d\ve\ff\u0085g"}},
		{"é 😀", []string{"é", "😀"}},
	} {
		assert.Equal(t, tt.want, squad.Words(tt.context), "%q", tt.context)
	}
}
