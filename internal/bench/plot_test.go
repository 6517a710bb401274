package bench_test

import (
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/bench"
)

func TestPlotSVG(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plot.svg")
	require.NoError(t, bench.Plot(path, append(closedResults(), openResults()...)))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var texts []string
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if text, ok := token.(xml.CharData); ok && strings.TrimSpace(string(text)) != "" {
			texts = append(texts, string(text))
		}
	}
	for _, want := range []string{
		"reference, fp32, length 128", "fused, bf16, length 384", "fused, fp32, length 128", // the lines
		"1", "16", "8", // the batch sizes of their points
		"sequences/s", "latency of a batch, median (ms)", "100", "1000",
	} {
		assert.Contains(t, texts, want)
	}
}

func TestPlotPNG(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plot.PNG")
	require.NoError(t, bench.Plot(path, closedResults()[:1]))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	image, err := png.DecodeConfig(f)
	require.NoError(t, err)
	assert.Equal(t, 480, image.Height)
	assert.Greater(t, image.Width, 640, "the legend is beside the plot")
}

func TestPlotRefuses(t *testing.T) {
	assert.EqualError(t, bench.Plot("plot.pdf", closedResults()), "a plot is a .png or an .svg file, not plot.pdf")
	assert.EqualError(t, bench.Plot("plot.svg", nil), "there are no results to plot")
}
