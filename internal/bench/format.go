package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// A Writer writes results one by one, so that those before an interruption are not lost.
type Writer[R any] interface {
	Write(*R) error
	// Close writes what follows the last result. It writes nothing if there was no result.
	Close() error
}

// NewJSON returns a Writer of a JSON array, which Close ends.
func NewJSON[R any](w io.Writer) Writer[R] { return &jsonWriter[R]{w: w} }

type jsonWriter[R any] struct {
	w     io.Writer
	begun bool
}

func (j *jsonWriter[R]) Write(r *R) error {
	var b bytes.Buffer
	if j.begun {
		b.WriteString(",\n  ")
	} else {
		b.WriteString("[\n  ")
	}
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("  ", "  ")
	if err := e.Encode(r); err != nil {
		return err
	}
	j.begun = true
	_, err := j.w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return err
}

func (j *jsonWriter[R]) Close() error {
	if !j.begun {
		return nil
	}
	_, err := io.WriteString(j.w, "\n]\n")
	return err
}

// columns is a table whose rows are written one by one. Its columns are aligned right, so that their figures can be
// compared.
type columns struct {
	w      io.Writer
	widths []int
}

// newColumns writes the header of a table. A column is as wide as the header's cell, or as its sample if that is wider.
func newColumns(w io.Writer, header, sample []string) (*columns, error) {
	c := &columns{w: w}
	for i, cell := range header {
		c.widths = append(c.widths, max(utf8.RuneCountInString(cell), utf8.RuneCountInString(sample[i])))
	}
	return c, c.write(header)
}

func (c *columns) write(cells []string) error {
	var b strings.Builder
	for i, cell := range cells {
		fmt.Fprintf(&b, "  %*s", c.widths[i], cell)
	}
	_, err := fmt.Fprintln(c.w, b.String())
	return err
}

// figures formats figures for a table.
func figures(values ...float64) (cells []string) {
	for _, v := range values {
		cells = append(cells, strconv.FormatFloat(v, 'f', 2, 64))
	}
	return cells
}

// samples returns n cells that are as wide as figures of less than a hundred thousand.
func samples(n int) []string { return slices.Repeat([]string{"12345.67"}, n) }

// NewTable returns a Writer for people: of a table, and above and below it what the results were measured on and how
// to understand them.
func NewTable(w io.Writer) Writer[Result] { return &table{w: w, said: map[string]bool{}} }

type table struct {
	w     io.Writer
	rows  *columns // nil before the first
	notes []string // below the table
	last  []string // below the notes
	said  map[string]bool
}

func (t *table) Write(r *Result) error {
	if t.rows == nil {
		if err := t.begin(r); err != nil {
			return err
		}
	}
	l := &r.Latency
	cells := []string{r.Model, r.Graph, r.Precision, strconv.Itoa(r.MaxSeqLength), strconv.Itoa(r.PredictBatchSize)}
	cells = append(cells,
		figures(r.Throughput, l.Average, l.Deviation, l.P50, l.P90, l.P95, l.P99, l.P100)...)
	if r.Queue != nil {
		cells = append(cells, figures(r.Queue.P50, r.Queue.P99)...)
	}
	t.note(r)
	return t.rows.write(append(cells, r.memory()))
}

// begin writes what stands above the first result.
func (t *table) begin(r *Result) (err error) {
	w := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
	if r.Environment != nil {
		r.Environment.write(w)
	}
	fmt.Fprintf(w, "load\t%s\n\n", r.load())
	if err := w.Flush(); err != nil {
		return err
	}
	header := []string{
		"model", "graph", "precision", "length", "batch", "sequences/s", "avg ms", "sd", "50%", "90%", "95%", "99%", "100%",
	}
	sample := append([]string{r.Model, "reference", "", "", "", ""}, samples(7)...)
	if r.Queue != nil {
		header, sample = append(header, "wait 50%", "wait 99%"), append(sample, samples(2)...)
	}
	t.rows, err = newColumns(t.w, append(header, "GiB"), append(sample, "12.34"))
	return err
}

// note keeps once what holds for several rows.
func (t *table) note(r *Result) {
	keep := func(list *[]string, line string) {
		if !t.said[line] {
			*list = append(*list, line)
		}
		t.said[line] = true
	}
	what := r.Graph + " " + r.Precision + ": "
	for _, text := range []string{r.Proof, r.Note} {
		if text != "" {
			keep(&t.notes, what+text)
		}
	}
	switch {
	case r.PeakMemory == 0:
		keep(&t.last, "GiB: this system does not tell how much memory was used")
	case r.PeakOf == "process":
		keep(&t.last, "GiB: the most memory resident since the process began, as this system cannot reset its count")
	default:
		keep(&t.last, "GiB: the most memory resident while the row was measured, with what the work before it left behind")
	}
}

func (t *table) Close() error {
	if t.rows == nil {
		return nil
	}
	_, err := io.WriteString(t.w, "\n"+strings.Join(append(t.notes, t.last...), "\n")+"\n")
	return err
}

func (e *Environment) write(w io.Writer) {
	units := "none"
	if len(e.BFloat16) > 0 {
		units = strings.Join(e.BFloat16, ", ")
	}
	fmt.Fprintf(w, "machine\t%s, %d CPUs, %.1f GiB; units for bfloat16: %s\n", e.CPU, e.CPUs, gibibytes(e.Memory), units)
	for _, g := range e.GPUs {
		fmt.Fprintf(w, "gpu\t%s\n", g)
	}
	fmt.Fprintf(w, "tensorflow\t%s, %s\n", e.TensorFlow, e.Library)
	fmt.Fprintf(w, "tfbert\t%s, %s %s/%s\n", e.Version, e.Go, e.OS, e.Arch)
}

// load returns how calls were made.
func (r *Result) load() string {
	switch {
	case r.Rate == 0:
		return fmt.Sprintf("closed loop, %d at once", r.Concurrency)
	case r.Poisson:
		return fmt.Sprintf("%g batches a second at random (Poisson), %d at once; latency from the arrival",
			r.Rate, r.Concurrency)
	}
	return fmt.Sprintf("%g batches a second in equal steps, %d at once; latency from the arrival", r.Rate, r.Concurrency)
}

func (r *Result) memory() string {
	if r.PeakMemory == 0 {
		return "?"
	}
	return fmt.Sprintf("%.2f", gibibytes(r.PeakMemory))
}

func gibibytes(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// NewNVIDIA returns a Writer of the lines of run_squad.py, by its formula, and below each such block of what it does
// not tell.
func NewNVIDIA(w io.Writer) Writer[Result] { return nvidia{w} }

type nvidia struct{ io.Writer }

func (nvidia) Close() error { return nil }

func (w nvidia) Write(r *Result) error {
	const rule = "-----------------------------\n"
	c, l := r.Reference, &r.Latency
	if c == nil {
		return fmt.Errorf("run_squad.py's formula takes two batches at least")
	}
	_, err := fmt.Fprintf(w.Writer, rule+
		"Total Inference Time = %0.2f for Sentences = %d\n"+
		"Total Inference Time W/O Overhead = %0.2f for Sentences = %d\n"+
		"Summary Inference Statistics\n"+
		"Batch size = %d\n"+
		"Sequence Length = %d\n"+
		"Precision = %s\n"+
		"Latency Confidence Level 50 (ms) = %0.2f\n"+
		"Latency Confidence Level 90 (ms) = %0.2f\n"+
		"Latency Confidence Level 95 (ms) = %0.2f\n"+
		"Latency Confidence Level 99 (ms) = %0.2f\n"+
		"Latency Confidence Level 100 (ms) = %0.2f\n"+
		"Latency Average (ms) = %0.2f\n"+
		"Throughput Average (sentences/sec) = %0.2f\n"+rule+
		"Model = %s, %s graph\n"+
		"Without warm-up: percentiles 50/90/95/99/100 (ms) = %0.2f %0.2f %0.2f %0.2f %0.2f\n"+
		"Without warm-up: average (ms) = %0.2f, sentences/sec = %0.2f\n",
		c.TotalSeconds, c.Sentences, c.CountedSeconds, c.CountedSentences,
		r.PredictBatchSize, r.MaxSeqLength, r.Precision,
		c.Level50, c.Level90, c.Level95, c.Level99, c.Level100, c.Average, c.Throughput,
		r.Model, r.Graph, l.P50, l.P90, l.P95, l.P99, l.P100, l.Average, r.Throughput)
	return err
}

// NewGo returns a Writer of the format of Go's benchmarks, which benchstat reads.
func NewGo(w io.Writer) Writer[Result] { return &goWriter{w: w} }

type goWriter struct {
	w     io.Writer
	begun bool
	cpus  int // of the first environment
}

func (g *goWriter) Close() error { return nil }

func (g *goWriter) Write(r *Result) error {
	var b strings.Builder
	if e := r.Environment; e != nil && g.cpus == 0 {
		g.cpus = e.CPUs
		fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\ntensorflow: %s\n", e.OS, e.Arch, e.CPU, e.TensorFlow)
	}
	if !g.begun {
		b.WriteString("Unit sequences/s better=higher\n")
	}
	g.begun = true
	fmt.Fprintf(&b, "BenchmarkPredict/model=%s/graph=%s/precision=%s/length=%d/batch=%d", word(r.Model), word(r.Graph),
		word(r.Precision), r.MaxSeqLength, r.PredictBatchSize)
	if r.Concurrency > 1 {
		fmt.Fprintf(&b, "/concurrency=%d", r.Concurrency)
	}
	if r.Rate > 0 {
		fmt.Fprintf(&b, "/rate=%g", r.Rate)
	}
	if g.cpus > 1 {
		fmt.Fprintf(&b, "-%d", g.cpus)
	}
	l := &r.Latency
	fmt.Fprintf(&b, "\t%d", r.Batches)
	for _, v := range []struct {
		ms   float64
		unit string
	}{
		{l.Average, "ns/op"}, {l.P50, "p50-ns/op"}, {l.P90, "p90-ns/op"},
		{l.P95, "p95-ns/op"}, {l.P99, "p99-ns/op"}, {l.P100, "p100-ns/op"},
	} {
		fmt.Fprintf(&b, "\t%.0f %s", v.ms*1e6, v.unit)
	}
	fmt.Fprintf(&b, "\t%.6g sequences/s", r.Throughput)
	if r.PeakMemory > 0 {
		fmt.Fprintf(&b, "\t%d peak-RSS-bytes", r.PeakMemory)
	}
	b.WriteString("\n")
	_, err := io.WriteString(g.w, b.String())
	return err
}

// word makes a name fit for a part of a benchmark's name.
func word(s string) string { return unfit.ReplaceAllString(filepath.Base(s), "_") }

var unfit = regexp.MustCompile(`[^\w.,+-]+`)
