package squad

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/pyjson"
)

// Names of the files that the reference scripts write.
const (
	PredictionsFile = "predictions.json"
	NBestFile       = "nbest_predictions.json"
	NullOddsFile    = "null_odds.json"
)

// Files writes the prediction files of the reference scripts, one prediction at a time. They have
// temporary names before Commit. The example of [Answerer.AnswerAll] shows how to use Files.
type Files struct {
	dir   string
	files []*pendingFile // nil when done
}

// A pendingFile is one of the files while it is written.
type pendingFile struct {
	*file.Pending
	name   string // that it is to have
	json   *pyjson.Writer
	member member
	err    error // the first of Write
}

// Write keeps the first error, so that a full disk stops a long run when it is full.
func (p *pendingFile) Write(b []byte) (int, error) {
	n, err := p.Pending.Write(b)
	p.err = cmp.Or(p.err, err)
	return n, err
}

// CreateFiles creates the files in dir, which it makes if necessary. NullOddsFile is for a decoder with
// WithNegative.
func CreateFiles(dir string, withNegative bool) (*Files, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("create prediction files: %w", err)
	}
	f := &Files{dir: dir}
	create := func(name string, member member) error {
		pending, err := file.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		pf := &pendingFile{Pending: pending, name: name, member: member}
		pf.json = newObject(pf)
		f.files = append(f.files, pf)
		return nil
	}
	err := create(PredictionsFile, answerMember)
	if err == nil {
		err = create(NBestFile, nBestMember)
	}
	if err == nil && withNegative {
		err = create(NullOddsFile, nullOddsMember)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create prediction files: %w", err), f.Abort())
	}
	return f, nil
}

// Write adds a prediction.
func (f *Files) Write(p *Prediction) error {
	if f.files == nil {
		return errors.New("write predictions: the files are committed or aborted")
	}
	for _, pf := range f.files {
		pf.member(pf.json, p)
		if pf.err != nil {
			return f.failed(pf, pf.err)
		}
	}
	return nil
}

// Commit completes the files and renames them to their names. If a file cannot be completed, none is
// renamed, and files that had the names before stay as they were.
func (f *Files) Commit() error {
	if f.files == nil {
		return errors.New("write predictions: the files are committed or aborted")
	}
	defer f.Abort()
	for _, pf := range f.files {
		err := endObject(pf.json)
		if err == nil {
			err = pf.Close()
		}
		if err != nil {
			return f.failed(pf, err)
		}
	}
	for _, pf := range f.files {
		if err := pf.Commit(); err != nil {
			return fmt.Errorf("write predictions: %w", err)
		}
	}
	f.files = nil
	return nil
}

// failed names the file that was to be in place of the temporary one.
func (f *Files) failed(pf *pendingFile, err error) error {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("write %s: %w", filepath.Join(f.dir, pf.name), err)
}

// Abort removes what was written. After Commit it does nothing.
func (f *Files) Abort() error {
	var errs []error
	for _, pf := range f.files {
		errs = append(errs, pf.Abort())
	}
	f.files = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	return nil
}
