package tfbert_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

func BenchmarkExport(b *testing.B) {
	testenv.TensorFlow(b)
	dir := filepath.Join(b.TempDir(), "model")
	var bytes int64
	for b.Loop() {
		report, err := tfbert.Export(b.Context(), testenv.Model(b), dir, &tfbert.ExportOptions{Overwrite: true})
		require.NoError(b, err)
		bytes = report.Bytes
	}
	b.SetBytes(bytes)
}

func BenchmarkPredict(b *testing.B) {
	m := openBundled(b)
	for _, length := range []int{128, 384} {
		f := squad.Featurizer{Tokenizer: m.Tokenizer(), MaxSeqLength: length}
		all := readFeatures(b, &f, testenv.Golden(b, "mini", "mini-v1.1.json"), 8)
		for _, batch := range []int{1, 8} {
			b.Run(fmt.Sprintf("length=%d/batch=%d", length, batch), func(b *testing.B) {
				for b.Loop() {
					predictOnce(b, m, all[:batch]...)
				}
				b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "sequences/s")
			})
		}
	}
}
