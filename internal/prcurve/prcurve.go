// Package prcurve draws the plots of evaluate-v2.0.py --out-image-dir: precision against recall,
// and histograms of the no-answer probabilities. It is a package of its own so that package squad
// does without the plotting library.
package prcurve

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/tfbert/go/internal/figure"
	"github.com/tfbert/go/squad"
)

var (
	blue  = color.NRGBA{B: 255, A: 51}
	solid = color.NRGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 255}
)

var titles = map[string]string{
	"pr_exact":  "Precision-Recall curve for Exact Match score",
	"pr_f1":     "Precision-Recall curve for F1 score",
	"pr_oracle": "Oracle Precision-Recall curve (binary task of HasAns vs. NoAns)",
}

// Write draws a into the folder dir, which it creates if necessary. format is "png" or "svg". The files are
// pr_exact, pr_f1, pr_oracle, na_prob_hist_hasAns and na_prob_hist_noAns. Like the script, Write draws curves
// only if a question has an answer, and no empty histogram. Probabilities outside 0 to 1, as null odds are, lie
// outside a histogram.
func Write(dir, format string, a *squad.Analysis) error {
	if format != "png" && format != "svg" {
		return fmt.Errorf("format %q, want png or svg", format)
	}
	plots := map[string]*plot.Plot{}
	for _, c := range a.Curves {
		p, err := curve(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		plots[c.Name] = p
	}
	for name, probs := range map[string][]float64{"hasAns": a.HasAns, "noAns": a.NoAns} {
		if len(probs) > 0 {
			plots["na_prob_hist_"+name] = histogram(name, probs)
		}
	}

	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for name, p := range plots {
		if err := figure.Save(p, nil, filepath.Join(dir, name+"."+format), format); err != nil {
			return err
		}
	}
	return nil
}

func curve(c squad.Curve) (*plot.Plot, error) {
	points := make(plotter.XYs, len(c.Points))
	for i, p := range c.Points {
		points[i] = plotter.XY{X: p.Recall, Y: p.Precision}
	}
	line, err := plotter.NewLine(points)
	if err != nil {
		return nil, err
	}
	line.StepStyle = plotter.PostStep
	line.Color = blue
	line.FillColor = blue

	p := figure.New(titles[c.Name], "Recall", "Precision")
	p.Add(line)
	p.X.Min, p.X.Max = 0, 1.05
	p.Y.Min, p.Y.Max = 0, 1.05
	p.X.Tick.Marker, p.Y.Tick.Marker = fifths, fifths
	return p, nil
}

// histogram shows which part of the probabilities lies in each of 20 bins.
func histogram(name string, probs []float64) *plot.Plot {
	const bins = 20
	h := &plotter.Histogram{Bins: make([]plotter.HistogramBin, bins), Width: 1. / bins, FillColor: solid}
	for i := range h.Bins {
		h.Bins[i].Min = float64(i) / bins
		h.Bins[i].Max = float64(i+1) / bins
	}
	for _, x := range probs {
		if 0 <= x && x <= 1 {
			h.Bins[min(int(x*bins), bins-1)].Weight += 1 / float64(len(probs))
		}
	}

	p := figure.New("Histogram of no-answer probability: "+name, "Model probability of no-answer", "Proportion of dataset")
	p.Add(h)
	p.X.Min, p.X.Max = -0.05, 1.05
	p.Y.Max = max(1.05*p.Y.Max, 0.05) // some height even if all lie outside
	p.X.Tick.Marker = fifths
	return p
}

var fifths = plot.ConstantTicks{
	{Value: 0, Label: "0.0"}, {Value: .2, Label: "0.2"}, {Value: .4, Label: "0.4"},
	{Value: .6, Label: "0.6"}, {Value: .8, Label: "0.8"}, {Value: 1, Label: "1.0"},
}
