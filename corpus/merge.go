package corpus

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/squad"
)

// A Summary counts what is done of a corpus, from its records alone.
type Summary struct {
	Chunks      int         `json:"chunks"` // of the plan
	Done        int         `json:"done"`
	Questions   int64       `json:"questions"` // of the plan, broken ones included
	Answers     int64       `json:"answers"`
	Warnings    int64       `json:"warnings"`
	Dead        int64       `json:"dead_letters"`
	Bytes       int64       `json:"bytes"` // of the answers
	Fingerprint Fingerprint `json:"fingerprint,omitempty"`

	// Missing are the chunks that are not done, as the first and the last of each run of them.
	Missing [][2]int `json:"missing,omitempty"`
}

// Status reads the records of a plan. Records of different runs are an error.
func Status(ctx context.Context, dir string, p *Plan) (*Summary, error) {
	s := &Summary{Chunks: len(p.Chunks)}
	err := s.walk(ctx, dir, p, func(*Record) error { return nil })
	return s, err
}

// walk counts the records in the order of the plan and calls f with each.
func (s *Summary) walk(ctx context.Context, dir string, p *Plan, f func(*Record) error) error {
	for _, c := range p.Chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.Questions += int64(c.Count)
		r, err := ReadRecord(dir, c)
		if err != nil {
			return err
		}
		if r == nil {
			if n := len(s.Missing); n > 0 && s.Missing[n-1][1] == c.Index-1 {
				s.Missing[n-1][1] = c.Index
			} else {
				s.Missing = append(s.Missing, [2]int{c.Index, c.Index})
			}
			continue
		}
		if s.Fingerprint == nil {
			s.Fingerprint = r.Fingerprint
		}
		if differs := r.Fingerprint.differs(s.Fingerprint); differs != "" {
			return &FingerprintError{dir, c.Index, differs}
		}
		s.Done++
		s.Answers += int64(r.Answers)
		s.Warnings += int64(r.Warnings)
		s.Dead += int64(len(r.Dead))
		s.Bytes += r.Bytes
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// An IncompleteError reports a corpus of which chunks are not done.
type IncompleteError struct {
	Dir     string
	Chunks  int
	Missing [][2]int // as in Summary
}

func (e *IncompleteError) Error() string {
	n := 0
	var runs []string
	for _, m := range e.Missing {
		n += m[1] - m[0] + 1
		if m[0] == m[1] {
			runs = append(runs, fmt.Sprint(m[0]))
		} else {
			runs = append(runs, fmt.Sprintf("%d to %d", m[0], m[1]))
		}
	}
	if most := 8; len(runs) > most {
		runs = append(runs[:most], fmt.Sprintf("and %d more runs", len(e.Missing)-most))
	}
	return fmt.Sprintf("%d of %d chunks of %s are not done: %s", n, e.Chunks, e.Dir, strings.Join(runs, ", "))
}

// A Sink takes the answers of a corpus in the order of its inputs.
type Sink interface {
	Chunk(answers []byte) error // lines of [Answer]
	Commit() error
	Abort() error // does nothing after Commit
}

// Merge hands the answers of a corpus to a sink, in the order of the inputs, and commits it. It returns an
// [*IncompleteError] if any chunk is not done.
func Merge(ctx context.Context, dir string, p *Plan, to Sink) (_ *Summary, err error) {
	defer func() { err = errors.Join(err, to.Abort()) }()
	s, err := Status(ctx, dir, p)
	if err != nil {
		return nil, err
	}
	if len(s.Missing) > 0 {
		return s, &IncompleteError{dir, s.Chunks, s.Missing}
	}
	s = &Summary{Chunks: len(p.Chunks)}
	if err := s.walk(ctx, dir, p, func(r *Record) error {
		answers, err := readAnswers(dir, r)
		if err != nil {
			return err
		}
		return to.Chunk(answers)
	}); err != nil {
		return nil, err
	}
	return s, to.Commit()
}

// readAnswers reads the answers of a chunk and checks them against its record.
func readAnswers(dir string, r *Record) ([]byte, error) {
	path := filepath.Join(dir, r.Path)
	b, err := file.Read(path, r.Bytes)
	if err != nil {
		return nil, fmt.Errorf("chunk %d: %w", r.Chunk.Index, err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != r.SHA256 {
		return nil, fmt.Errorf("%s is damaged: remove it and %s, and do chunk %d again",
			path, r.Chunk.recordPath(dir), r.Chunk.Index)
	}
	return b, nil
}

// JSONL returns a sink that writes a file of all lines.
func JSONL(path string) (Sink, error) {
	p, err := file.Create(path)
	if err != nil {
		return nil, err
	}
	return &jsonl{p, bufio.NewWriterSize(p, 1<<20)}, nil
}

type jsonl struct {
	pending *file.Pending
	w       *bufio.Writer
}

func (j *jsonl) Chunk(answers []byte) error {
	_, err := j.w.Write(answers)
	return err
}

func (j *jsonl) Commit() error {
	if err := j.w.Flush(); err != nil {
		return err
	}
	return j.pending.Commit()
}

func (j *jsonl) Abort() error { return j.pending.Abort() }

// PredictionFiles returns a sink that writes the files of run_squad.py into a folder. The workers must have kept the
// n-best answers.
func PredictionFiles(dir string, withNegative bool) (Sink, error) {
	files, err := squad.CreateFiles(dir, withNegative)
	if err != nil {
		return nil, err
	}
	return &predictions{files}, nil
}

type predictions struct{ *squad.Files }

func (p *predictions) Chunk(answers []byte) error {
	d := json.NewDecoder(bytes.NewReader(answers))
	for {
		var a Answer
		switch err := d.Decode(&a); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case len(a.NBest) == 0:
			return fmt.Errorf("the answer to %s has no n-best answers, which prediction files need: "+
				"keep them when answering", a.ID)
		}
		prediction := squad.Prediction{ID: a.ID, Answer: a.Answer, Warning: a.Warning}
		if a.NullOdds != nil {
			prediction.NullOdds = *a.NullOdds
		}
		for _, c := range a.NBest {
			prediction.NBest = append(prediction.NBest, squad.Candidate{
				Text: c.Text, Probability: c.Probability, StartLogit: c.StartLogit, EndLogit: c.EndLogit,
			})
		}
		if err := p.Write(&prediction); err != nil {
			return err
		}
	}
}

// Sweep removes what killed workers left in the folder of an output: temporary files that are older than any chunk
// takes. It returns their number.
func Sweep(dir string, age time.Duration) (removed int, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !file.IsTemporary(d.Name()) {
			return err
		}
		info, err := d.Info()
		if err == nil && time.Since(info.ModTime()) > age {
			if err = os.Remove(path); err == nil {
				removed++
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // its worker has just finished it
		}
		return err
	})
	return removed, err
}

func sortedKeys(f, g Fingerprint) []string {
	keys := maps.Clone(f)
	if keys == nil {
		keys = Fingerprint{}
	}
	maps.Copy(keys, g)
	return slices.Sorted(maps.Keys(keys))
}

// WriteDeadLetters writes the dead letters of a corpus into a file, a line of JSON for each.
func WriteDeadLetters(ctx context.Context, dir string, p *Plan, path string) error {
	return commit(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return new(Summary).walk(ctx, dir, p, func(r *Record) error {
			for _, d := range r.Dead {
				if err := e.Encode(d); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
