package squad_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

func TestGoldenFeatures(t *testing.T) {
	for _, name := range []string{"v1.s384.lower", "v1.s128.lower", "v1.s64.cased", "v2.s128.lower", "google.s128", "nv2006.s128"} {
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
