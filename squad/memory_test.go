package squad_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

// TestMemoryIsBounded streams a data set of 50,000 questions, five times the size of SQuAD's, from
// reader to files and holds that what is kept does not grow with it.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const paragraphs, perParagraph = 10000, 5
	file, w := io.Pipe()
	go func() { w.CloseWithError(writeDataset(w, paragraphs, perParagraph)) }()

	a := &squad.Answerer{Featurizer: *steveFeaturizer(t), Predictor: predictor(zeros)}
	a.Featurizer.MaxSeqLength = 384
	files, err := squad.CreateFiles(t.TempDir(), false)
	require.NoError(t, err)
	defer files.Abort()

	var early, late uint64
	n := 0
	for p, err := range a.AnswerAll(t.Context(), squad.Examples(file)) {
		require.NoError(t, err)
		require.NoError(t, files.Write(&p))
		switch n++; n {
		case paragraphs * perParagraph / 50:
			early = heapInUse()
		case paragraphs*perParagraph - 100: // at the end the reader is done and its memory free
			late = heapInUse()
		}
	}
	require.NoError(t, files.Commit())
	require.Equal(t, paragraphs*perParagraph, n)
	t.Logf("heap: %d bytes after %d questions, %d after %d", early, n/50, late, n-100)
	const idHash = 40 // bytes a question to find repeated ids
	assert.Less(t, late, early+idHash*paragraphs*perParagraph+1<<20)
}

// heapInUse returns the bytes that are in use.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// writeDataset writes a data set whose paragraphs have 120 words each.
func writeDataset(w io.Writer, paragraphs, perParagraph int) error {
	context := strings.Repeat("steve smith's dog ", 40)
	if _, err := io.WriteString(w, `{"version": "1.1", "data": [{"title": "Dogs", "paragraphs": [`); err != nil {
		return err
	}
	for i := range paragraphs {
		var b strings.Builder
		if i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, `{"context": %q, "qas": [`, context)
		for j := range perParagraph {
			if j > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b,
				`{"id": "56be4db0acb80014%d-%d", "question": "who", "answers": [{"text": "dog", "answer_start": 14}]}`, i, j)
		}
		b.WriteString("]}")
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]}]}")
	return err
}
