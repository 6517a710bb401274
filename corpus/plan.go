package corpus

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tfbert/go/internal/file"
)

// DefaultChunk is the number of questions of a chunk. Windows are padded to the longest of their batch, and a larger
// chunk has more of one length.
const DefaultChunk = 512

// A Plan divides inputs into chunks.
type Plan struct {
	Inputs []Input
	Chunks []Chunk
}

// An Input is a file of questions.
type Input struct {
	Path   string `json:"path"`
	Format Format `json:"format"`
}

// A Chunk is a number of questions of one input, side by side.
type Chunk struct {
	Index  int    `json:"chunk"`
	Input  int    `json:"input"`            // among the plan's
	First  int64  `json:"first"`            // of the input's questions, counted from 0, broken ones included
	Count  int    `json:"count"`            // broken ones included
	Offset int64  `json:"offset,omitempty"` // of the first one in the unpacked file, if reading can begin there
	Line   int64  `json:"line"`             // of the first one
	SHA256 string `json:"sha256"`           // of what it holds
}

// MakePlan reads the inputs once and divides them into chunks of a number of questions. The plan of the same files is
// the same.
func MakePlan(ctx context.Context, paths []string, size int) (*Plan, error) {
	if size < 1 {
		return nil, fmt.Errorf("plan: a chunk of %d questions: it must have at least one", size)
	}
	p := &Plan{}
	for i, path := range paths {
		format, err := formatOf(path)
		if err != nil {
			return nil, err
		}
		p.Inputs = append(p.Inputs, Input{path, format})
		if err := p.divide(ctx, i, size); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// divide adds the chunks of an input.
func (p *Plan) divide(ctx context.Context, input, size int) (err error) {
	in, err := open(p.Inputs[input])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	var c *Chunk
	sum := sha256.New()
	end := func() {
		if c != nil {
			c.SHA256 = hex.EncodeToString(sum.Sum(nil))
			p.Chunks = append(p.Chunks, *c)
			c = nil
			sum.Reset()
		}
	}
	for n := int64(0); ; n++ {
		q, err := in.next()
		if err == io.EOF {
			end()
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Inputs[input].Path, err)
		}
		if c == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			c = &Chunk{Index: len(p.Chunks), Input: input, First: n, Offset: q.offset, Line: q.line}
		}
		q.addTo(sum)
		if c.Count++; c.Count == size {
			end()
		}
	}
}

// addTo adds what a chunk holds of a question to its hash.
func (q *question) addTo(h hash.Hash) {
	for _, s := range []string{q.id, q.text, q.context, q.broken} {
		fmt.Fprintf(h, "%d:%s", len(s), s) // a hash does not fail
	}
}

// Name returns the name of a chunk's files, without what says which of them.
func (c Chunk) Name() string { return fmt.Sprintf("%09d", c.Index) }

// Share returns the chunks of one of several workers: all together are the plan. They stand side by side, so that
// each worker reads its part of a packed file once.
func (p *Plan) Share(index, of int) ([]Chunk, error) {
	if of < 1 || index < 0 || index >= of {
		return nil, fmt.Errorf("there is no worker %d of %d: they count from 0", index, of)
	}
	n := len(p.Chunks)
	return p.Chunks[n*index/of : n*(index+1)/of], nil
}

const planFile = "plan.jsonl"

// A header is the first line of a plan's file.
type header struct {
	Plan   int     `json:"plan"` // the version of the form
	Chunks int     `json:"chunks"`
	Inputs []Input `json:"inputs"`
}

// Write writes the plan into the folder of the output, or does nothing if it is there. Another plan there is an error.
func (p *Plan) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	there, err := ReadPlan(dir)
	switch {
	case err == nil:
		return there.sameAs(p, dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return commit(filepath.Join(dir, planFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		if err := e.Encode(header{1, len(p.Chunks), p.Inputs}); err != nil {
			return err
		}
		for _, c := range p.Chunks {
			if err := e.Encode(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// sameAs returns an error that says what differs between the plan of a folder and another one.
func (p *Plan) sameAs(q *Plan, dir string) error {
	differs := ""
	switch {
	case len(p.Inputs) != len(q.Inputs):
		differs = fmt.Sprintf("it has %d inputs, not %d", len(p.Inputs), len(q.Inputs))
	case len(p.Chunks) != len(q.Chunks):
		differs = fmt.Sprintf("it has %d chunks, not %d", len(p.Chunks), len(q.Chunks))
	}
	for i := 0; differs == "" && i < len(p.Inputs); i++ {
		if p.Inputs[i] != q.Inputs[i] {
			differs = fmt.Sprintf("input %d is %s, not %s", i, p.Inputs[i].Path, q.Inputs[i].Path)
		}
	}
	for i := 0; differs == "" && i < len(p.Chunks); i++ {
		if p.Chunks[i] != q.Chunks[i] {
			differs = fmt.Sprintf("chunk %d, from line %d of %s, is another one: the file or the size of chunks has changed",
				i, p.Chunks[i].Line, p.Inputs[p.Chunks[i].Input].Path)
		}
	}
	if differs == "" {
		return nil
	}
	return fmt.Errorf("%s has the plan of another corpus: %s", dir, differs)
}

// ReadPlan reads the plan in the folder of an output.
func ReadPlan(dir string) (*Plan, error) {
	f, _, err := file.Open(filepath.Join(dir, planFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := json.NewDecoder(bufio.NewReader(f))
	var h header
	if err := d.Decode(&h); err != nil || h.Plan != 1 {
		return nil, fmt.Errorf("%s is not a plan", f.Name())
	}
	p := &Plan{Inputs: h.Inputs}
	for d.More() {
		var c Chunk
		err := d.Decode(&c)
		if err != nil || c.Index != len(p.Chunks) || c.Input < 0 || c.Input >= len(p.Inputs) || c.Count < 1 {
			return nil, fmt.Errorf("%s is damaged at chunk %d", f.Name(), len(p.Chunks))
		}
		p.Chunks = append(p.Chunks, c)
	}
	if len(p.Chunks) != h.Chunks {
		return nil, fmt.Errorf("%s is damaged: it has %d of %d chunks", f.Name(), len(p.Chunks), h.Chunks)
	}
	return p, nil
}

// commit writes a file that appears whole, on the disk, or not at all.
func commit(path string, write func(w io.Writer) error) (err error) {
	p, err := file.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // which does nothing after Commit
	w := bufio.NewWriterSize(p, 1<<16)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return p.Commit()
}

// Format is the form of an input.
type Format string

// The forms of inputs, each of which may be packed by gzip or Zstandard.
const (
	LinesFormat Format = "jsonl" // {"id": …, "question": …, "context": …} on each line
	TableFormat Format = "csv"   // columns id, question and context, named in the first line
	SQuADFormat Format = "squad" // a data set of SQuAD
)

// formatOf returns the form that a file has by its name.
func formatOf(path string) (Format, error) {
	name := strings.ToLower(filepath.Base(path))
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	switch filepath.Ext(name) {
	case ".jsonl", ".ndjson":
		return LinesFormat, nil
	case ".csv":
		return TableFormat, nil
	case ".json":
		return SQuADFormat, nil
	}
	return "", fmt.Errorf("%s: the form of the file is not known by its name: it must end in .jsonl, .csv or .json, "+
		"or in one of these with .gz or .zst", path)
}
