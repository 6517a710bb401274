package squad

import (
	"bufio"
	"fmt"
	"io"

	"github.com/tfbert/go/internal/pyjson"
)

// Print writes what the official script of the report's version prints, byte for byte: version 1.1
// its messages to stderr and the result on one line, version 2.0 everything to stdout.
func (r *Report) Print(stdout, stderr io.Writer) error {
	if err := r.PrintMessages(stdout, stderr); err != nil {
		return err
	}
	indent := 0
	if r.Version == "2.0" {
		indent = 2
	}
	return r.write(stdout, indent, true)
}

// PrintMessages writes only what the script prints before the result, as it does when the result
// goes to a file.
func (r *Report) PrintMessages(stdout, stderr io.Writer) error {
	to := stderr
	if r.Version == "2.0" {
		to = stdout
	}
	w := bufio.NewWriter(to)
	for _, line := range r.messages {
		w.WriteString(line)
		w.WriteByte('\n')
	}
	return printed(w.Flush())
}

// WriteJSON writes the result as evaluate-v2.0.py --out-file does, without a line feed at the end.
func (r *Report) WriteJSON(w io.Writer) error { return r.write(w, 0, false) }

func (r *Report) write(to io.Writer, indent int, newline bool) error {
	w := pyjson.NewWriter(to, indent)
	w.BeginObject()
	if r.Version == "2.0" {
		r.members(w)
	} else {
		figure(w, "exact_match", r.ExactMatch)
		figure(w, "f1", r.F1)
	}
	w.EndObject()
	if newline {
		w.Newline()
	}
	return printed(w.Flush())
}

func (r *Report) members(w *pyjson.Writer) {
	scores(w, "", &r.Scores)
	if r.HasAns != nil {
		scores(w, "HasAns_", r.HasAns)
	}
	if r.NoAns != nil {
		scores(w, "NoAns_", r.NoAns)
	}
	if b := r.Best; b != nil {
		figure(w, "best_exact", b.ExactMatch)
		figure(w, "best_exact_thresh", b.ExactMatchThresh)
		figure(w, "best_f1", b.F1)
		figure(w, "best_f1_thresh", b.F1Thresh)
	}
	if r.Analysis != nil {
		for _, c := range r.Analysis.Curves {
			figure(w, c.Name+"_ap", c.AveragePrecision)
		}
	}
}

func scores(w *pyjson.Writer, prefix string, s *Scores) {
	figure(w, prefix+"exact", s.ExactMatch)
	figure(w, prefix+"f1", s.F1)
	w.Key(prefix + "total")
	w.Int(int64(s.Total))
}

func figure(w *pyjson.Writer, name string, value float64) {
	w.Key(name)
	w.Float(value)
}

func printed(err error) error {
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
