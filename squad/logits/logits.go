// Package logits stores a model's logits in a NumPy file, and predicts from such a file in place of the
// model. The array is float32 [windows, 2, length]: for each window, in the order of the data set, the
// start logits and then the end logits. NaN stands for a logit that was not computed, which only
// padding may be.
package logits

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/squad"
)

// A Reader is a [squad.Predictor] that reads the logits of a file, window by window. It belongs to one
// goroutine at a time and must be asked for the windows in their order: an [squad.Answerer] that uses
// it must have neither Lookahead nor Concurrency.
type Reader struct {
	path            string
	f               *os.File
	r               *npy.Reader
	windows, length int
	left            int // windows that are not read
}

// Open opens a file of logits.
func Open(path string) (_ *Reader, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	r, err := npy.NewReader(f)
	if err != nil {
		return nil, err
	}
	if r.DType != npy.Float32 || len(r.Shape) != 3 || r.Shape[1] != 2 {
		return nil, fmt.Errorf("want float32 [windows, 2, length], got %s %v", r.DType, r.Shape)
	}
	return &Reader{path: path, f: f, r: r, windows: r.Shape[0], length: r.Shape[2], left: r.Shape[0]}, nil
}

// Windows returns the number of windows in the file.
func (r *Reader) Windows() int { return r.windows }

// Length returns the length of the windows.
func (r *Reader) Length() int { return r.length }

// Next returns the logits of the next window, all starts before all ends. After the last window it
// returns a [CountError].
func (r *Reader) Next() ([]float32, error) {
	if r.left == 0 {
		return nil, &CountError{Path: r.path, Windows: r.windows}
	}
	both := make([]float32, 2*r.length)
	if err := r.r.ReadFloat32s(both); err != nil {
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	r.left--
	return both, nil
}

// Predict returns the logits of the next windows.
func (r *Reader) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		both, err := r.Next()
		if err != nil {
			return nil, err
		}
		results[i] = squad.RawResult{
			UniqueID:    f.UniqueID,
			StartLogits: computed(both[:r.length], f.Len),
			EndLogits:   computed(both[r.length:], f.Len),
		}
	}
	return results, nil
}

// computed cuts off the NaN at the end of a row, but never logits of the window's tokens.
func computed(row []float32, tokens int) []float32 {
	n := len(row)
	for n > tokens && row[n-1] != row[n-1] {
		n--
	}
	return row[:n]
}

// Done returns a [CountError] if the file holds windows that were not read.
func (r *Reader) Done() error {
	if r.left > 0 {
		return &CountError{Path: r.path, Windows: r.windows, More: true}
	}
	return nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.f.Close() }

// A CountError reports a file that holds more or fewer windows than the data set has.
type CountError struct {
	Path    string
	Windows int // of the file
	More    bool
}

func (e *CountError) Error() string {
	how := "fewer"
	if e.More {
		how = "more"
	}
	return fmt.Sprintf("%s holds the logits of %d windows, %s than the data set has", e.Path, e.Windows, how)
}

// A Writer writes a file of logits.
type Writer struct {
	w   *npy.Writer
	nan []float32 // a row
}

// Create creates a file for the logits of windows of a length. The file is complete after Close.
func Create(path string, length int) (*Writer, error) {
	w, err := npy.Create(path, npy.Float32, 2, length)
	if err != nil {
		return nil, err
	}
	return &Writer{w, slices.Repeat([]float32{float32(math.NaN())}, length)}, nil
}

// Write appends what a model made of the next windows. Logits that were not computed become NaN.
func (w *Writer) Write(results []squad.RawResult) error {
	for _, r := range results {
		for _, row := range [][]float32{r.StartLogits, r.EndLogits} {
			if len(row) > len(w.nan) {
				return fmt.Errorf("got %d logits for a window of length %d", len(row), len(w.nan))
			}
			if err := errors.Join(w.w.WriteFloat32s(row), w.w.WriteFloat32s(w.nan[len(row):])); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close completes the file and closes it.
func (w *Writer) Close() error { return w.w.Close() }
