package prcurve_test

import (
	"encoding/xml"
	"errors"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/prcurve"
	"github.com/tfbert/go/squad"
)

var analysis = &squad.Analysis{
	Curves: []squad.Curve{
		{Name: "pr_exact", Points: points(0, 1, .25, .9, .5, .5)},
		{Name: "pr_f1", Points: points(0, 1, .5, .5)},
		{Name: "pr_oracle", Points: points(0, 1, 1, 1)},
	},
	HasAns: []float64{0, .01, .04, .06, .99, 1},
	NoAns:  []float64{-3, 7},
}

// points takes recall and precision in turn.
func points(values ...float64) (points []squad.PRPoint) {
	for ; len(values) > 0; values = values[2:] {
		points = append(points, squad.PRPoint{Recall: values[0], Precision: values[1]})
	}
	return points
}

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWritePNG(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "images")
	require.NoError(t, prcurve.Write(dir, "png", analysis))
	assert.Equal(t, []string{
		"na_prob_hist_hasAns.png", "na_prob_hist_noAns.png", "pr_exact.png", "pr_f1.png", "pr_oracle.png",
	}, fileNames(t, dir))

	f, err := os.Open(filepath.Join(dir, "pr_oracle.png"))
	require.NoError(t, err)
	defer f.Close()
	image, err := png.Decode(f)
	require.NoError(t, err)
	assert.Equal(t, 640, image.Bounds().Dx())
	assert.Equal(t, 480, image.Bounds().Dy())
	// The oracle's whole square is filled, light blue on white; beyond a recall of 1 nothing is.
	assert.Equal(t, color.RGBA{204, 204, 255, 255}, color.RGBAModel.Convert(image.At(320, 240)))
	assert.Equal(t, color.RGBA{255, 255, 255, 255}, color.RGBAModel.Convert(image.At(630, 240)))
}

func TestWriteSVG(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, prcurve.Write(dir, "svg", analysis))
	for _, name := range fileNames(t, dir) {
		f, err := os.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		defer f.Close()
		var text string
		for d := xml.NewDecoder(f); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, name)
			if c, ok := token.(xml.CharData); ok {
				text += string(c)
			}
		}
		for _, want := range map[string][]string{
			"pr_exact.svg":            {"Precision-Recall curve for Exact Match score", "Recall", "Precision"},
			"pr_f1.svg":               {"Precision-Recall curve for F1 score"},
			"pr_oracle.svg":           {"Oracle Precision-Recall curve (binary task of HasAns vs. NoAns)"},
			"na_prob_hist_hasAns.svg": {"Histogram of no-answer probability: hasAns", "Proportion of dataset"},
			"na_prob_hist_noAns.svg":  {"Histogram of no-answer probability: noAns"},
		}[name] {
			assert.Contains(t, text, want)
		}
	}
}

func TestWriteWithoutAnswers(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, prcurve.Write(dir, "png", &squad.Analysis{NoAns: []float64{.5}}))
	assert.Equal(t, []string{"na_prob_hist_noAns.png"}, fileNames(t, dir))
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	assert.EqualError(t, prcurve.Write(dir, "gif", analysis), `format "gif", want png or svg`)
	assert.Empty(t, fileNames(t, dir))

	taken := filepath.Join(dir, "pr_f1.png")
	require.NoError(t, os.Mkdir(taken, 0o777))
	err := prcurve.Write(dir, "png", &squad.Analysis{Curves: analysis.Curves[1:2]})
	assert.ErrorContains(t, err, "write "+taken+": ")
	assert.Equal(t, []string{"pr_f1.png"}, fileNames(t, dir))

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	assert.ErrorContains(t, prcurve.Write(file, "png", analysis), "")
}
