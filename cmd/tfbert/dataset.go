package main

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"os"

	"github.com/tfbert/go/squad"
)

// examples reads a data set's questions, a paragraph at a time; its errors name the file.
func examples(path string) iter.Seq2[*squad.Example, error] {
	return func(yield func(*squad.Example, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		for ex, err := range squad.Examples(bufio.NewReaderSize(f, 1<<16)) {
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
