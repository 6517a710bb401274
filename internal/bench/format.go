package bench

import (
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
)

// WriteTable writes results for people: a table, and above and below it what they were measured on
// and how to understand them.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(results) > 0 {
		r := &results[0]
		if r.Environment != nil {
			r.Environment.write(t)
		}
		fmt.Fprintf(t, "load\t%s\n", r.load())
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}

	// Right-aligned, so that the figures of a column can be compared.
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	queued := len(results) > 0 && results[0].Queue != nil
	header := "model\tgraph\tprecision\tlength\tbatch\tsequences/s\tavg ms\tsd\t50%\t90%\t95%\t99%\t100%\t"
	if queued {
		header += "wait 50%\twait 99%\t"
	}
	fmt.Fprintln(t, header+"GiB\t")
	for i := range results {
		r := &results[i]
		l := &r.Latency
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t", r.Model, r.Graph, r.Precision,
			r.MaxSeqLength, r.PredictBatchSize, r.Throughput, l.Average, l.Deviation, l.P50, l.P90, l.P95, l.P99, l.P100)
		if queued {
			fmt.Fprintf(t, "%.2f\t%.2f\t", r.Queue.P50, r.Queue.P99)
		}
		fmt.Fprintf(t, "%s\t\n", r.memory())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return writeNotes(w, results)
}

// writeNotes writes once what holds for several rows.
func writeNotes(w io.Writer, results []Result) (err error) {
	said := map[string]bool{}
	say := func(line string) {
		if err == nil && !said[line] {
			_, err = fmt.Fprintln(w, line)
		}
		said[line] = true
	}
	say("")
	for i := range results {
		r := &results[i]
		what := r.Graph + " " + r.Precision + ": "
		if r.Proof != "" {
			say(what + r.Proof)
		}
		if r.Note != "" {
			say(what + r.Note)
		}
	}
	for i := range results {
		switch r := &results[i]; {
		case r.PeakMemory == 0:
			say("GiB: this system does not tell how much memory was used")
		case r.PeakOf == "process":
			say("GiB: the most memory resident since the process began, as this system cannot reset its count")
		default:
			say("GiB: the most memory resident while the row was measured, with what rows before it left behind")
		}
	}
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

// WriteNVIDIA writes results in the lines of run_squad.py, by its formula, and below each such block
// what it does not tell.
func WriteNVIDIA(w io.Writer, results []Result) error {
	const rule = "-----------------------------\n"
	for i := range results {
		r := &results[i]
		c, l := r.Reference, &r.Latency
		if c == nil {
			return fmt.Errorf("run_squad.py's formula takes two batches at least")
		}
		_, err := fmt.Fprintf(w, rule+
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
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteGo writes results in the format of Go's benchmarks, which benchstat reads.
func WriteGo(w io.Writer, results []Result) error {
	var b strings.Builder
	var e *Environment
	for i := range results {
		r := &results[i]
		if r.Environment != nil && e == nil {
			e = r.Environment
			fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\ntensorflow: %s\n", e.OS, e.Arch, e.CPU, e.TensorFlow)
		}
		if i == 0 {
			b.WriteString("Unit sequences/s better=higher\n")
		}
		fmt.Fprintf(&b, "BenchmarkPredict/model=%s/graph=%s/precision=%s/length=%d/batch=%d", word(r.Model), word(r.Graph),
			word(r.Precision), r.MaxSeqLength, r.PredictBatchSize)
		if r.Concurrency > 1 {
			fmt.Fprintf(&b, "/concurrency=%d", r.Concurrency)
		}
		if r.Rate > 0 {
			fmt.Fprintf(&b, "/rate=%g", r.Rate)
		}
		if e != nil && e.CPUs > 1 {
			fmt.Fprintf(&b, "-%d", e.CPUs)
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
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// word makes a name fit for a part of a benchmark's name.
func word(s string) string { return unfit.ReplaceAllString(filepath.Base(s), "_") }

var unfit = regexp.MustCompile(`[^\w.,+-]+`)
