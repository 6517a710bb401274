package squad_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
)

// readLogits reads a recorded array as one run of numbers.
func readLogits(t testing.TB, path string) []float32 {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r, err := npy.NewReader(f)
	require.NoError(t, err)
	n := 1
	for _, d := range r.Shape {
		n *= d
	}
	values := make([]float32, n)
	require.NoError(t, r.ReadFloat32s(values))
	return values
}

// logits returns the logits of the run: recorded from a model, or made up.
func (g *golden) logits(t testing.TB) func(squad.Feature) squad.RawResult {
	if g.Logits == "model" {
		all := readLogits(t, g.base+".logits.npy")
		require.Len(t, all, g.Features*2*g.MaxSeqLength)
		return func(f squad.Feature) squad.RawResult {
			at := int(f.UniqueID-1000000000) * 2 * g.MaxSeqLength
			both := all[at : at+2*g.MaxSeqLength]
			return squad.RawResult{UniqueID: f.UniqueID, StartLogits: both[:g.MaxSeqLength], EndLogits: both[g.MaxSeqLength:]}
		}
	}
	var seed uint64
	_, err := fmt.Sscanf(g.Logits, "synthetic seed %d", &seed)
	require.NoError(t, err)
	lowerPadding := strings.HasSuffix(g.Logits, ", minus 20 where input_mask is 0")
	return func(f squad.Feature) squad.RawResult {
		r := squad.RawResult{UniqueID: f.UniqueID}
		at := uint64(f.UniqueID-1000000000) * 2 * uint64(g.MaxSeqLength)
		for _, dst := range []*[]float32{&r.StartLogits, &r.EndLogits} {
			*dst = make([]float32, g.MaxSeqLength)
			for i := range *dst {
				at++
				(*dst)[i] = syntheticLogit(seed, at)
				if lowerPadding && f.InputMask[i] == 0 {
					(*dst)[i] -= 20
				}
			}
		}
		return r
	}
}

// syntheticLogit returns the n-th of the logits from -10 to 10 that belong to seed, counted from 1.
func syntheticLogit(seed, n uint64) float32 {
	z := seed + n*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	z ^= z >> 31
	return float32(((z>>40)*640)>>24)/32 - 10
}

// A replay is a model that returns known logits.
type replay func(squad.Feature) squad.RawResult

func (r replay) Predict(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		results[i] = r(f)
	}
	return results, nil
}

func TestGoldenPredictions(t *testing.T) {
	metas, err := filepath.Glob(testenv.Golden(t, "mini", "*.meta.json"))
	require.NoError(t, err)
	require.Len(t, metas, 8)
	for _, meta := range metas {
		name := strings.TrimSuffix(filepath.Base(meta), ".meta.json")
		t.Run(name, func(t *testing.T) {
			g := miniGolden(t, name)
			digest := sha256.New()
			a := &squad.Answerer{
				Featurizer: *g.featurizer(t),
				Predictor:  replay(g.logits(t)),
				Decoder:    *g.decoder(),
				OnExample: func(w *squad.Windows, _ []squad.RawResult) error {
					for _, f := range w.Features {
						for _, ids := range [][]int32{f.InputIDs, f.InputMask, f.SegmentIDs} {
							binary.Write(digest, binary.LittleEndian, ids)
						}
					}
					return nil
				},
			}
			answered := 0
			dir := t.TempDir()
			files, err := squad.CreateFiles(dir, g.WithNegative)
			require.NoError(t, err)
			defer files.Abort()
			for p, err := range a.AnswerAll(t.Context(), g.examples(t)) {
				require.NoError(t, err)
				require.Empty(t, p.Warning)
				answered++
				require.NoError(t, files.Write(&p))
			}
			require.NoError(t, files.Commit())
			assert.Equal(t, g.Examples, answered)
			assert.Equal(t, g.FeaturesSHA, hex.EncodeToString(digest.Sum(nil)))

			checkFile := func(file, golden string) {
				want := gunzip(t, g.base+golden)
				got, err := os.ReadFile(filepath.Join(dir, file))
				require.NoError(t, err)
				assertBytes(t, want, got, file)
			}
			checkFile("predictions.json", ".predictions.json")
			checkFile("nbest_predictions.json", ".nbest.json.gz")
			if g.WithNegative {
				checkFile("null_odds.json", ".null_odds.json")
			} else {
				assert.NoFileExists(t, filepath.Join(dir, "null_odds.json"))
			}
		})
	}
}

func TestGoldenDevSet(t *testing.T) {
	for _, name := range []string{"s384", "s128", "s384.v2"} {
		t.Run(name, func(t *testing.T) {
			g := devGolden(t, name)
			d, logits := g.decoder(), g.logits(t)
			digest := sha256.New()
			var all []squad.Prediction
			var backing []byte
			features, tokens := 0, 0
			for w, err := range g.featurizer(t).Windows(g.examples(t)) {
				require.NoError(t, err)
				results := make([]squad.RawResult, len(w.Features))
				for i, f := range w.Features {
					backing = backing[:0]
					for _, ids := range [][]int32{f.InputIDs, f.InputMask, f.SegmentIDs} {
						for _, id := range ids {
							backing = binary.LittleEndian.AppendUint32(backing, uint32(id))
						}
					}
					digest.Write(backing)
					results[i] = logits(f)
					features++
					tokens += f.Len
				}
				p, err := d.Decode(w.Example, w.Features, results)
				require.NoError(t, err)
				all = append(all, p)
			}
			assert.Len(t, all, g.Examples)
			assert.Equal(t, g.Features, features)
			assert.Equal(t, g.RealTokens, tokens)
			assert.Equal(t, g.FeaturesSHA, hex.EncodeToString(digest.Sum(nil)))

			answers := writeFile(t, squad.PredictionsFile, all)
			assertBytes(t, gunzip(t, g.base+".predictions.json.gz"), answers, "predictions.json")
			assert.Equal(t, g.PredictionsSHA, sha(answers))
			nBest := writeFile(t, squad.NBestFile, all)
			assert.Equal(t, g.NBestSHA, sha(nBest), "nbest_predictions.json")
			if g.WithNegative {
				nullOdds := writeFile(t, squad.NullOddsFile, all)
				assertBytes(t, gunzip(t, g.base+".null_odds.json.gz"), nullOdds, "null_odds.json")
				assert.Equal(t, g.NullOddsSHA, sha(nullOdds))
			}
		})
	}
}

// TestGoldenModelOnDevSet decodes what the bundled model made of the dev set's first windows.
func TestGoldenModelOnDevSet(t *testing.T) {
	g := devGolden(t, "e2e")
	logits := readLogits(t, g.base+".logits-first-64.npy")
	next := func() []float32 {
		l := logits[:g.MaxSeqLength]
		logits = logits[g.MaxSeqLength:]
		return l
	}
	var all []squad.Prediction
	for w, err := range g.featurizer(t).Windows(g.examples(t)) {
		require.NoError(t, err)
		if len(logits) < len(w.Features)*2*g.MaxSeqLength {
			break
		}
		var results []squad.RawResult
		for _, f := range w.Features {
			results = append(results, squad.RawResult{UniqueID: f.UniqueID, StartLogits: next(), EndLogits: next()})
		}
		p, err := g.decoder().Decode(w.Example, w.Features, results)
		require.NoError(t, err)
		all = append(all, p)
	}
	require.Greater(t, len(all), 50)
	for _, tt := range []struct{ golden, file string }{
		{".nbest-first-200.json.gz", squad.NBestFile},
		{".predictions.json.gz", squad.PredictionsFile},
	} {
		got := bytes.TrimSuffix(writeFile(t, tt.file, all), []byte("\n}\n"))
		want := gunzip(t, g.base+tt.golden)
		require.Greater(t, len(want), len(got))
		assertBytes(t, want[:len(got)], got, tt.golden)
	}
}
