package compare_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/compare"
)

// writeFolder writes predictions of one run, with null odds.
func writeFolder(t *testing.T, predictions ...squad.Prediction) string {
	t.Helper()
	dir := t.TempDir()
	files, err := squad.CreateFiles(dir, true)
	require.NoError(t, err)
	for i := range predictions {
		require.NoError(t, files.Write(&predictions[i]))
	}
	require.NoError(t, files.Commit())
	return dir
}

func prediction(id, answer string, probability, nullOdds float64) squad.Prediction {
	return squad.Prediction{
		ID: id, Answer: answer, NullOdds: nullOdds,
		NBest: []squad.Candidate{{Text: answer, Probability: probability}},
	}
}

func TestFolders(t *testing.T) {
	a := writeFolder(t, prediction("q1", "steve", 1, 0), prediction("q2", "the dog", 0.75, 1))
	b := writeFolder(t, prediction("q1", "steve", 0.5, 0), prediction("q2", "a cat", 0.5, 3))
	c, err := compare.Folders(a, b)
	require.NoError(t, err)
	assert.Equal(t, 2, c.Questions)
	assert.Equal(t, 1, c.Answers)
	assert.Equal(t, 1, c.TopFive)
	assert.Equal(t, 1, c.NBest)
	assert.Equal(t, &compare.Numbers{Compared: 2, Largest: 2}, c.NullOdds)
	require.Len(t, c.Different, 1)
	assert.Equal(t, compare.Answer{Answer: "the dog", Probability: 0.75}, c.Different[0].A)

	data, err := squad.ReadDataset(strings.NewReader(`{"version": "1.1", "data": [{"paragraphs": [{"context": "x", "qas": [
		{"id": "q1", "question": "who", "answers": [{"text": "smith"}]},
		{"id": "q2", "question": "who", "answers": [{"text": "dog"}]},
		{"id": "q3", "question": "who", "answers": [{"text": "x"}]}]}]}]}`))
	require.NoError(t, err)
	missing, err := c.Score(data)
	require.NoError(t, err)
	assert.Equal(t, 1, missing)
	assert.InDelta(t, 100./3, c.Scores.A.ExactMatch, 1e-9)
	assert.Zero(t, c.Scores.B.ExactMatch)
	assert.Equal(t, 100., c.Different[0].A.ExactMatch)

	require.NoError(t, os.Remove(filepath.Join(b, squad.NullOddsFile)))
	c, err = compare.Folders(a, b)
	require.NoError(t, err)
	assert.Nil(t, c.NullOdds, "one side does not have them")
}
