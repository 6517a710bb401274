package squad_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// A golden is a recorded run of the reference scripts.
type golden struct {
	Reference      string  `json:"reference"`
	Dataset        string  `json:"dataset"`
	MaxSeqLength   int     `json:"max_seq_length"`
	DocStride      int     `json:"doc_stride"`
	MaxQueryLength int     `json:"max_query_length"`
	NBestSize      int     `json:"n_best_size"`
	MaxAnswer      int     `json:"max_answer_length"`
	Lower          bool    `json:"do_lower_case"`
	WithNegative   bool    `json:"version_2_with_negative"`
	Threshold      float64 `json:"null_score_diff_threshold"`
	Examples       int     `json:"examples"`
	Features       int     `json:"features"`
	RealTokens     int     `json:"real_tokens"`
	FeaturesSHA    string  `json:"features_sha256"`
	Logits         string  `json:"logits"`
	PredictionsSHA string  `json:"predictions_sha256"`
	NBestSHA       string  `json:"nbest_sha256"`
	NullOddsSHA    string  `json:"null_odds_sha256"`

	base string // path without the suffix .meta.json
	data string // path of the data set
}

func readGolden(t testing.TB, meta, dataDir string) *golden {
	t.Helper()
	text, err := os.ReadFile(meta)
	require.NoError(t, err)
	g := &golden{base: strings.TrimSuffix(meta, ".meta.json")}
	require.NoError(t, json.Unmarshal(text, g))
	g.data = filepath.Join(dataDir, g.Dataset)
	return g
}

// miniGolden returns a run over the small data set in testdata.
func miniGolden(t testing.TB, name string) *golden {
	return readGolden(t, testenv.Golden(t, "mini", name+".meta.json"), testenv.Golden(t, "mini"))
}

// devGolden returns a run over the whole of SQuAD 1.1's dev set.
func devGolden(t testing.TB, name string) *golden {
	return readGolden(t, testenv.Shared(t, "golden", "dev", name+".meta.json"), testenv.Shared(t, "data"))
}

func (g *golden) featurizer(t testing.TB) *squad.Featurizer {
	profile := map[string]wordpiece.Profile{
		"nv1903": wordpiece.NVIDIA1903, "google": wordpiece.Google, "nv": wordpiece.NVIDIA2006,
	}
	require.Contains(t, profile, g.Reference)
	return &squad.Featurizer{
		Tokenizer:      &wordpiece.Tokenizer{Vocab: bertVocab(t), Cased: !g.Lower, Profile: profile[g.Reference]},
		MaxSeqLength:   g.MaxSeqLength,
		DocStride:      g.DocStride,
		MaxQueryLength: g.MaxQueryLength,
	}
}

func (g *golden) decoder() *squad.Decoder {
	return &squad.Decoder{
		NBestSize:              g.NBestSize,
		MaxAnswerLength:        g.MaxAnswer,
		WithNegative:           g.WithNegative,
		NullScoreDiffThreshold: g.Threshold,
	}
}

// examples reads the run's data set.
func (g *golden) examples(t testing.TB) iter.Seq2[*squad.Example, error] {
	f, err := os.Open(g.data)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return squad.Examples(f)
}

func bertVocab(t testing.TB) *wordpiece.Vocab {
	f, err := os.Open(filepath.Join(testenv.Model(t), "vocab.txt"))
	require.NoError(t, err)
	defer f.Close()
	v, err := wordpiece.ReadVocab(f)
	require.NoError(t, err)
	return v
}

// gunzip returns the text of a file, compressed or not.
func gunzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		r, err = gzip.NewReader(f)
		require.NoError(t, err)
	}
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return text
}

func sha(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// assertBytes compares files without printing all of them.
func assertBytes(t testing.TB, want, got []byte, name string) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	w, g := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	for i := range min(len(w), len(g)) {
		if !bytes.Equal(w[i], g[i]) {
			t.Errorf("%s differs in line %d:\n want %s\n got  %s", name, i+1, w[i], g[i])
			return
		}
	}
	t.Errorf("%s has %d lines, want %d", name, len(g), len(w))
}
