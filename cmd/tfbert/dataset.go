package main

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/squad"
)

// examples reads a data set's questions, a paragraph at a time; its errors name the file.
func examples(path string) iter.Seq2[*squad.Example, error] {
	return func(yield func(*squad.Example, error) bool) {
		text, err := file.OpenText(path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer text.Close()
		for ex, err := range squad.Examples(text) {
			if err != nil {
				err = fmt.Errorf("%s: %w", path, err)
			}
			if !yield(ex, err) {
				return
			}
		}
	}
}

// examples returns the questions that the flags select.
func (f *featureFlags) examples() iter.Seq2[*squad.Example, error] {
	all := examples(f.predictFile)
	if f.numEvalIterations > 0 {
		return squad.First(f.numEvalIterations*f.predictBatchSize, all)
	}
	return all
}

// count reads the whole data set, so that a mistake in it is found before a model is loaded and a
// file written.
func (f *featureFlags) count(ctx context.Context) (questions int, err error) {
	for _, err := range f.examples() {
		if err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		questions++
	}
	return questions, nil
}

// A reference is a data set to score by.
type reference struct {
	*squad.Dataset
	path string
	ids  map[string]int // how often each occurs
}

func readReference(path string) (*reference, error) {
	data, err := file.Parse(path, squad.ReadDataset)
	if err != nil {
		return nil, err
	}
	return &reference{data, path, data.IDs()}, nil
}

// has reports whether the data set has a question.
func (r *reference) has(id string) bool { return r.ids[id] > 0 }

// warn tells what makes scores say less than they seem to.
func (r *reference) warn() {
	repeated := slices.Sorted(func(yield func(string) bool) {
		for id, n := range r.ids {
			if n > 1 && !yield(id) {
				return
			}
		}
	})
	if len(repeated) > 0 {
		warn("%s: ids that occur more than once: %d, such as %q; the rules of 1.1 score every such question, "+
			"those of 2.0 only the last", r.path, len(repeated), repeated[0])
	}
	if len(r.ids) > 0 && !r.Labelled() {
		warn("%s: no question has a reference answer: if the data set is unlabelled, the scores say nothing", r.path)
	}
}
