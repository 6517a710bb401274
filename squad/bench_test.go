package squad_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/squad"
)

// BenchmarkDevSet measures each stage on the whole of SQuAD 1.1's dev set at 384/128.
func BenchmarkDevSet(b *testing.B) {
	g := devGolden(b, "s384")
	file, err := os.ReadFile(g.data)
	require.NoError(b, err)
	text := string(file)
	f, d := g.featurizer(b), g.decoder()

	features := func(b *testing.B) (all []*squad.Windows) {
		n := 0
		for w, err := range f.Windows(squad.Examples(strings.NewReader(text))) {
			require.NoError(b, err)
			all = append(all, w)
			n += len(w.Features)
		}
		require.Equal(b, g.Features, n)
		return all
	}
	decode := func(b *testing.B, all []*squad.Windows, results [][]squad.RawResult) {
		for i, w := range all {
			_, err := d.Decode(w.Example, w.Features, results[i])
			require.NoError(b, err)
		}
	}
	logits := g.logits(b)
	all := features(b)
	results := make([][]squad.RawResult, len(all))
	for i, w := range all {
		for _, f := range w.Features {
			results[i] = append(results[i], logits(f))
		}
	}
	perSecond := func(b *testing.B) {
		b.ReportMetric(float64(g.Features*b.N)/b.Elapsed().Seconds(), "features/s")
	}

	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range squad.Examples(strings.NewReader(text)) {
				require.NoError(b, err)
			}
		}
	})
	b.Run("features", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			features(b)
		}
		perSecond(b)
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decode(b, all, results)
		}
		perSecond(b)
	})
	b.Run("together", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decode(b, features(b), results)
		}
		perSecond(b)
	})
}
