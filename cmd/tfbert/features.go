package main

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/pyjson"
	"github.com/tfbert/go/squad"
)

func newFeatures() *cobra.Command {
	var tokenizer tokenizerFlags
	var windows featureFlags
	var out, format string
	cmd := &cobra.Command{
		Use:   "features --vocab_file V --predict_file F --out X.npz",
		Short: "Turn a SQuAD file into the model's input",
		Long: `Features writes the windows of a SQuAD file: as an .npz archive with the int32
arrays input_ids, input_mask and segment_ids [windows, length] and unique_ids
[windows], or with --format jsonl as a line of JSON a window with every field.
It needs no TensorFlow.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is required")
			}
			create, ok := map[string]func(string, int) (featureWriter, error){"npz": createNPZ, "jsonl": createJSONL}[format]
			if !ok {
				return usagef("--format is npz or jsonl, not %q", format)
			}
			if err := windows.check(); err != nil {
				return err
			}
			featurizer, err := tokenizer.featurizer(&windows)
			if err != nil {
				return err
			}
			w, err := create(out, windows.maxSeqLength)
			if err != nil {
				return err
			}
			n, err := writeFeatures(cmd, out, w, &featurizer, windows)
			if err != nil {
				return errors.Join(err, w.abort())
			}
			say("%d windows: %s", n, filepath.Clean(out))
			return nil
		},
	}
	f := cmd.Flags()
	tokenizer.add(f)
	windows.add(f)
	f.StringVar(&out, "out", "", "`file` to write")
	f.StringVar(&format, "format", "npz", "npz or jsonl")
	return cmd
}

// featureWriter writes windows to a file that appears at commit.
type featureWriter interface {
	write(f *squad.Feature) error
	commit() error
	abort() error
}

func writeFeatures(
	cmd *cobra.Command, out string, w featureWriter, featurizer *squad.Featurizer, windows featureFlags,
) (n int, err error) {
	for f, err := range featurizer.Features(windows.examples()) {
		if err != nil {
			return n, err
		}
		if err := cmd.Context().Err(); err != nil {
			return n, err
		}
		if err := w.write(f); err != nil {
			return n, writing(out, err)
		}
		n++
	}
	return n, writing(out, w.commit())
}

// npzWriter spools each array to a file of its own, because an archive takes them one after
// another.
type npzWriter struct {
	out    *file.Pending
	names  []string
	arrays []*npy.Writer
}

func createNPZ(path string, length int) (featureWriter, error) {
	out, err := createOutput(path)
	if err != nil {
		return nil, err
	}
	w := &npzWriter{out: out, names: []string{"input_ids", "input_mask", "segment_ids", "unique_ids"}}
	for _, name := range w.names {
		row := []int{length}
		if name == "unique_ids" {
			row = nil
		}
		a, err := npy.Create(w.spool(name), npy.Int32, row...)
		if err != nil {
			return nil, errors.Join(err, w.abort())
		}
		w.arrays = append(w.arrays, a)
	}
	return w, nil
}

func (w *npzWriter) spool(name string) string { return w.out.Name() + "." + name }

func (w *npzWriter) write(f *squad.Feature) error {
	for i, values := range [][]int32{f.InputIDs, f.InputMask, f.SegmentIDs, {f.UniqueID}} {
		if err := w.arrays[i].WriteInt32s(values); err != nil {
			return err
		}
	}
	return nil
}

func (w *npzWriter) commit() error {
	files := make([]string, len(w.names))
	for i, name := range w.names {
		files[i] = w.spool(name)
		if err := w.arrays[i].Close(); err != nil {
			return err
		}
	}
	if err := npy.Zip(w.out.Name(), w.names, files); err != nil {
		return err
	}
	for _, spool := range files {
		if err := os.Remove(spool); err != nil {
			return err
		}
	}
	return w.out.Commit()
}

func (w *npzWriter) abort() error {
	for i, name := range w.names {
		if i < len(w.arrays) {
			_ = w.arrays[i].Close() // closed already where commit failed
		}
		_ = os.Remove(w.spool(name)) // not there yet where creating failed
	}
	return w.out.Abort()
}

// jsonlWriter writes a line of JSON a window, in the form of Python's json.dumps.
type jsonlWriter struct {
	out *file.Pending
	buf *bufio.Writer
}

func createJSONL(path string, _ int) (featureWriter, error) {
	out, err := createOutput(path)
	if err != nil {
		return nil, err
	}
	return &jsonlWriter{out, bufio.NewWriterSize(out, 1<<16)}, nil
}

func (w *jsonlWriter) write(f *squad.Feature) error {
	j := pyjson.NewWriter(w.buf, 0)
	number := func(key string, n int) {
		j.Key(key)
		j.Int(int64(n))
	}
	array := func(key string, values []int32) {
		j.Key(key)
		j.BeginArray()
		for _, v := range values {
			j.Int(int64(v))
		}
		j.EndArray()
	}
	j.BeginObject()
	number("unique_id", int(f.UniqueID))
	number("example_index", f.ExampleIndex)
	number("doc_span_index", f.DocSpanIndex)
	j.Key("tokens")
	j.BeginArray()
	for _, token := range f.Tokens() {
		j.String(token)
	}
	j.EndArray()
	j.Key("token_to_orig_map")
	j.BeginObject()
	for pos := range f.Len {
		if word, ok := f.TokenToOrig(pos); ok {
			number(strconv.Itoa(pos), word)
		}
	}
	j.EndObject()
	j.Key("token_is_max_context")
	j.BeginObject()
	for pos := range f.Len {
		if _, ok := f.TokenToOrig(pos); ok {
			j.Key(strconv.Itoa(pos))
			j.Bool(f.MaxContext(pos))
		}
	}
	j.EndObject()
	array("input_ids", f.InputIDs)
	array("input_mask", f.InputMask)
	array("segment_ids", f.SegmentIDs)
	j.EndObject()
	j.Newline()
	return j.Flush()
}

func (w *jsonlWriter) commit() error {
	if err := w.buf.Flush(); err != nil {
		return err
	}
	return w.out.Commit()
}

func (w *jsonlWriter) abort() error { return w.out.Abort() }
