package corpus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/squad"
)

// An Answer is a line of the output.
type Answer struct {
	ID          string  `json:"id"`
	Answer      string  `json:"answer"`
	Start       int     `json:"start"` // of the answer in the context, in code points; -1 if it is not a text of it
	End         int     `json:"end"`
	Probability float64 `json:"probability"` // among the n-best answers
	StartLogit  float64 `json:"start_logit"`
	EndLogit    float64 `json:"end_logit"`

	NullOdds *float64    `json:"null_odds,omitempty"` // with negatives: the score of no answer less that of the answer
	Warning  string      `json:"warning,omitempty"`   // why there is no text to choose from
	NBest    []Candidate `json:"nbest,omitempty"`     // if Worker.NBest asks for them
}

// A Candidate is one of an answer's n-best.
type Candidate struct {
	Text        string  `json:"text"`
	Probability float64 `json:"probability"`
	StartLogit  float64 `json:"start_logit"`
	EndLogit    float64 `json:"end_logit"`
}

// A DeadLetter is a question that cannot be asked.
type DeadLetter struct {
	File   string `json:"file"`
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// A Record says that a chunk is done. It is written last, and counts come from records alone.
type Record struct {
	Chunk       Chunk        `json:"chunk"`
	Fingerprint Fingerprint  `json:"fingerprint"`
	Path        string       `json:"path"`   // of the answers, in the folder of the output
	SHA256      string       `json:"sha256"` // of the answers
	Bytes       int64        `json:"bytes"`
	Answers     int          `json:"answers"`
	Warnings    int          `json:"warnings"` // answers with one
	Dead        []DeadLetter `json:"dead_letters,omitempty"`
}

// A Fingerprint is all that the bytes of answers depend on, by name: the model, the settings, the versions.
type Fingerprint map[string]string

// differs returns what differs between two fingerprints, or "".
func (f Fingerprint) differs(g Fingerprint) string {
	var parts []string
	for _, key := range sortedKeys(f, g) {
		if a, b := f[key], g[key]; a != b {
			parts = append(parts, fmt.Sprintf("%s is %s, not %s", key, orNothing(a), orNothing(b)))
		}
	}
	return strings.Join(parts, "; ")
}

func orNothing(s string) string {
	if s == "" {
		return "not set"
	}
	return s
}

// A FingerprintError reports a chunk that was done with other settings or another model.
type FingerprintError struct {
	Dir     string
	Chunk   int
	Differs string // what is different in what was done, not in what is asked for
}

func (e *FingerprintError) Error() string {
	return fmt.Sprintf("%s has answers of another run: in chunk %d %s; use the same, or another folder",
		e.Dir, e.Chunk, e.Differs)
}

// A Worker does chunks. Its methods may be called by several goroutines at once if Answer may.
type Worker struct {
	Dir         string // of the output, which workers of one corpus share
	Plan        *Plan
	Fingerprint Fingerprint
	NBest       bool // keep the n-best answers, which prediction files need
	Negative    bool // keep how much better no answer is

	// Answer answers questions in their order, as the AnswerAll of [squad.Answerer] does. Its batches must depend on
	// nothing but the questions.
	Answer func(context.Context, iter.Seq2[*squad.Example, error]) iter.Seq2[squad.Prediction, error]

	mu   sync.Mutex
	open *input // where the last chunk ended
}

// Close closes what the worker has open.
func (w *Worker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		return nil
	}
	in := w.open
	w.open = nil
	return in.close()
}

// Do does a chunk, unless it is done already. It returns its record.
func (w *Worker) Do(ctx context.Context, c Chunk) (*Record, error) {
	r, err := w.Done(c)
	if err != nil || r != nil {
		return r, err
	}
	questions, err := w.questions(c)
	if err != nil {
		return nil, fmt.Errorf("chunk %d: %w", c.Index, err)
	}
	r = &Record{Chunk: c, Fingerprint: w.Fingerprint, Path: filepath.Join(answersDir, c.group(), c.Name()+".jsonl")}
	if err := w.write(ctx, r, questions); err != nil {
		return nil, fmt.Errorf("chunk %d, from line %d of %s: %w", c.Index, c.Line, w.Plan.Inputs[c.Input].Path, err)
	}
	return r, nil
}

const (
	answersDir = "answers"
	recordsDir = "records"
)

// group is the folder of a chunk's files, so that no folder has too many.
func (c Chunk) group() string { return c.Name()[:6] }

func (c Chunk) recordPath(dir string) string {
	return filepath.Join(dir, recordsDir, c.group(), c.Name()+".json")
}

// Done returns the record of a chunk, or nil if it is not done. A record of another corpus or run is an error.
func (w *Worker) Done(c Chunk) (*Record, error) {
	r, err := ReadRecord(w.Dir, c)
	if r == nil || err != nil {
		return nil, err
	}
	if differs := r.Fingerprint.differs(w.Fingerprint); differs != "" {
		return nil, &FingerprintError{w.Dir, c.Index, differs}
	}
	return r, nil
}

const maxRecord = 64 << 20

// ReadRecord returns the record of a chunk in the folder of an output, or nil if the chunk is not done.
func ReadRecord(dir string, c Chunk) (*Record, error) {
	path := c.recordPath(dir)
	b, err := file.Read(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s is not a record: %w", path, err)
	}
	if r.Chunk != c {
		return nil, fmt.Errorf("%s is of another chunk: the plan or its inputs have changed", path)
	}
	return r, nil
}

// questions returns the questions of a chunk.
func (w *Worker) questions(c Chunk) (list []question, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.open
	w.open = nil
	if in != nil && (in.Input != w.Plan.Inputs[c.Input] || in.read > c.First) {
		err = in.close()
		in = nil
	}
	if in == nil && err == nil {
		in, err = open(w.Plan.Inputs[c.Input])
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		} else {
			w.open = in
		}
	}()
	changed := fmt.Errorf("%s is not what it was when the plan was made", in.Path)
	if err := in.skipTo(c); err != nil {
		return nil, errors.Join(changed, err)
	}
	sum := sha256.New()
	for range c.Count {
		q, err := in.next()
		if err != nil {
			return nil, errors.Join(changed, err)
		}
		q.addTo(sum)
		list = append(list, q)
	}
	if hex.EncodeToString(sum.Sum(nil)) != c.SHA256 {
		return nil, changed
	}
	return list, nil
}

// write writes the answers and then the record.
func (w *Worker) write(ctx context.Context, r *Record, questions []question) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := questions[:0:0]
	for _, q := range questions {
		if q.broken != "" {
			r.Dead = append(r.Dead, DeadLetter{w.Plan.Inputs[r.Chunk.Input].Path, q.line, q.broken})
		} else {
			asked = append(asked, q)
		}
	}
	passages := map[string]*squad.Passage{} // questions of one passage share it
	examples := func(yield func(*squad.Example, error) bool) {
		for _, q := range asked {
			if passages[q.context] == nil {
				passages[q.context] = squad.NewPassage(q.context)
			}
			if !yield(&squad.Example{ID: q.id, Question: q.text, Words: passages[q.context].Words}, nil) {
				return
			}
		}
	}
	for _, dir := range []string{filepath.Join(w.Dir, r.Path), r.Chunk.recordPath(w.Dir)} {
		if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
			return err
		}
	}
	sum := sha256.New()
	err := commit(filepath.Join(w.Dir, r.Path), func(out io.Writer) error {
		counted := &countingWriter{w: io.MultiWriter(out, sum)}
		e := json.NewEncoder(counted)
		e.SetEscapeHTML(false)
		for p, err := range w.Answer(ctx, examples) {
			if err != nil {
				return err
			}
			if r.Answers == len(asked) || p.ID != asked[r.Answers].id {
				return fmt.Errorf("the answer to %s came in the place of another", p.ID)
			}
			q := asked[r.Answers]
			if err := e.Encode(w.answer(&p, passages[q.context])); err != nil {
				return err
			}
			r.Answers++
			if p.Warning != "" {
				r.Warnings++
			}
		}
		r.Bytes = counted.n
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if r.Answers != len(asked) {
		return fmt.Errorf("%d of %d questions have an answer", r.Answers, len(asked))
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err := syncFolder(filepath.Dir(filepath.Join(w.Dir, r.Path))); err != nil {
		return err
	}
	return commit(r.Chunk.recordPath(w.Dir), func(out io.Writer) error {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	})
}

// answer returns the line of a prediction.
func (w *Worker) answer(p *squad.Prediction, passage *squad.Passage) *Answer {
	a := &Answer{ID: p.ID, Answer: p.Answer, Start: -1, End: -1, Warning: p.Warning}
	if w.Negative {
		a.NullOdds = &p.NullOdds
	}
	best := slices.IndexFunc(p.NBest, func(c squad.Candidate) bool { return c.Text == p.Answer })
	if best >= 0 {
		c := &p.NBest[best]
		a.Probability, a.StartLogit, a.EndLogit = c.Probability, c.StartLogit, c.EndLogit
		if start, end, ok := passage.Locate(c); ok {
			a.Start, a.End = start, end
		}
	}
	if w.NBest {
		for _, c := range p.NBest {
			a.NBest = append(a.NBest, Candidate{c.Text, c.Probability, c.StartLogit, c.EndLogit})
		}
	}
	return a
}

// syncFolder writes the names in a folder to its disk, so that a record never outlives the answers that it names.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
