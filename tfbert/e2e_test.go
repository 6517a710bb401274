package tfbert_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
)

// TestEndToEnd answers SQuAD 1.1's dev set with the bundled model, as the reference run did: reference
// graph, float32, padded to 384, batches of 8. It takes every hundredth question, with TFBERT_E2E=slice
// every sixth, and with TFBERT_E2E=all the whole set, which takes ten minutes or more ('make e2e').
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "predicts a hundred windows")
	every := cmp.Or(map[string]int{"slice": 6, "all": 1}[os.Getenv("TFBERT_E2E")], 100)
	data := readDataset(t, testenv.Shared(t, "data", "dev-v1.1.json"), every)
	reference := readAnswers(t, gunzip(t, testenv.Shared(t, "golden", "dev", "e2e.predictions.json.gz")))
	m := openBundled(t)

	began := time.Now()
	answers := map[string]string{}
	different, windows := 0, 0
	a := m.Answerer()
	a.OnExample = func(w *squad.Windows, _ []squad.RawResult) error {
		windows += len(w.Features)
		return nil
	}
	for p, err := range a.AnswerAll(t.Context(), data.Examples()) {
		require.NoError(t, err)
		answers[p.ID] = p.Answer
		if p.Answer != reference[p.ID] {
			different++
		}
	}
	seconds := time.Since(began).Seconds()

	got, err := squad.Evaluate(data, answers, nil)
	require.NoError(t, err)
	want, err := squad.Evaluate(data, reference, nil)
	require.NoError(t, err)
	require.Equal(t, "1.1", got.Version)
	require.Equal(t, got.Total, len(answers))
	t.Logf("%d questions, %d windows in %.1f s, %.1f windows/s", len(answers), windows, seconds, float64(windows)/seconds)
	t.Logf("EM %.4f (reference %.4f), F1 %.4f (reference %.4f), %d answers different",
		got.ExactMatch, want.ExactMatch, got.F1, want.F1, different)
	assert.LessOrEqual(t, float64(different), 0.002*float64(len(answers)))
	assert.InDelta(t, want.ExactMatch, got.ExactMatch, 0.05)
	assert.InDelta(t, want.F1, got.F1, 0.05)
}

// readDataset reads every n-th question of a data set, from the first.
func readDataset(t testing.TB, path string, n int) *squad.Dataset {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	data, err := squad.ReadDataset(f)
	require.NoError(t, err)
	at := 0
	for _, article := range data.Articles {
		for i := range article.Paragraphs {
			var kept []squad.Question
			for _, question := range article.Paragraphs[i].QAs {
				if at%n == 0 {
					kept = append(kept, question)
				}
				at++
			}
			article.Paragraphs[i].QAs = kept
		}
	}
	return data
}

func gunzip(t testing.TB, path string) []byte {
	t.Helper()
	compressed, err := os.ReadFile(path)
	require.NoError(t, err)
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return data
}
