package bench

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/tfbert/go/internal/figure"
)

// PlotFormat returns the format of a plot's file by its name: "png" or "svg".
func PlotFormat(path string) (string, error) {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".png", ".svg":
		return ext[1:], nil
	}
	return "", fmt.Errorf("a plot is a .png or an .svg file, not %s", path)
}

// Plot draws throughput against the median latency: a line for each graph, precision and length, a
// point for each batch size, which stands beside it. Repeated rows are one point, their mean.
func Plot(path string, results []Result) error {
	format, err := PlotFormat(path)
	if err != nil {
		return err
	}
	lines := series(results)
	if len(lines) == 0 {
		return errors.New("there are no results to plot")
	}
	// The figures span orders of magnitude.
	p := figure.New("Throughput and latency by batch size", "latency of a batch, median (ms)", "sequences/s")
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	p.Add(plotter.NewGrid())
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.Padding = true, true, vg.Points(4)
	var colors []string // one for each graph and precision
	var dashes []int    // one for each length
	for _, s := range lines {
		line, points, err := plotter.NewLinePoints(s)
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		labels, err := plotter.NewLabels(s)
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		line.Color = plotutil.Color(place(&colors, s.Graph+" "+s.Precision))
		line.Dashes = plotutil.Dashes(place(&dashes, s.MaxSeqLength))
		line.Width = vg.Points(1.5)
		points.Color, points.Shape = line.Color, draw.CircleGlyph{}
		labels.Offset = vg.Point{X: vg.Points(4), Y: vg.Points(4)}
		p.Add(line, points, labels)
		legend.Add(fmt.Sprintf("%s, %s, length %d", s.Graph, s.Precision, s.MaxSeqLength), line, points)
	}
	p.X.Min, p.X.Max = bounds(p.X.Min, p.X.Max)
	p.Y.Min, p.Y.Max = bounds(p.Y.Min, p.Y.Max)
	if err := figure.Save(p, &legend, path, format); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	return nil
}

// place returns the place of v in a list, to which it is added if need be.
func place[T comparable](list *[]T, v T) int {
	if !slices.Contains(*list, v) {
		*list = append(*list, v)
	}
	return slices.Index(*list, v)
}

// A line of the plot: rows that differ in their batch size alone, which is 0 in Row.
type line struct {
	Row
	points []point
}

type point struct {
	batch   int
	results []Result
}

func (l *line) Len() int { return len(l.points) }

func (l *line) Label(i int) string { return strconv.Itoa(l.points[i].batch) }

func (l *line) XY(i int) (x, y float64) {
	all := l.points[i].results
	for _, r := range all {
		x += r.Latency.P50 / float64(len(all))
		y += r.Throughput / float64(len(all))
	}
	return x, y
}

// series returns the lines in the order of the results, their points in that of the batch sizes.
func series(results []Result) (lines []*line) {
	for _, r := range results {
		row := r.Row
		row.PredictBatchSize = 0
		at := slices.IndexFunc(lines, func(l *line) bool { return l.Row == row })
		if at < 0 {
			at, lines = len(lines), append(lines, &line{Row: row})
		}
		l := lines[at]
		byBatch := func(p point, batch int) int { return p.batch - batch }
		i, found := slices.BinarySearchFunc(l.points, r.PredictBatchSize, byBatch)
		if !found {
			l.points = slices.Insert(l.points, i, point{batch: r.PredictBatchSize})
		}
		l.points[i].results = append(l.points[i].results, r)
	}
	return lines
}

// bounds returns the ends of a logarithmic axis: ticks, some way from the points and their labels.
func bounds(low, high float64) (from, to float64) {
	const room = 1.15
	t := ticks(low/10, high*10)
	from, to = t[0].Value, t[len(t)-1].Value
	for _, v := range t {
		if v.Value*room <= low {
			from = v.Value
		}
		if v.Value >= high*room {
			to = min(to, v.Value)
		}
	}
	return from, to
}

// ticks are at 1, 2 and 5 times the powers of ten.
func ticks(low, high float64) (t []plot.Tick) {
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, step := range []float64{1, 2, 5} {
			if v := step * power; low <= v && v <= high {
				t = append(t, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 4, 64)})
			}
		}
	}
	return t
}
