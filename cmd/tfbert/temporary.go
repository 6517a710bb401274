package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tfbert/go/internal/file"
)

// temporary is an output file that has another name until it is complete.
type temporary struct {
	path, name string
	pending    *file.Pending
}

// newTemporary makes the temporary file beside path, so that a folder that is missing is found at once.
func newTemporary(path string) (temporary, error) {
	p, err := file.Create(path)
	if err != nil {
		return temporary{}, writing(path, err)
	}
	return temporary{path, p.Name(), p}, nil
}

// writing names the file that a person asked for in place of the temporary one.
func writing(path string, err error) error {
	if err == nil {
		return nil
	}
	file, link := (*fs.PathError)(nil), (*os.LinkError)(nil)
	switch {
	case errors.As(err, &file):
		err = file.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return fmt.Errorf("cannot write %s: %w", path, err)
}

func (t temporary) commit() error { return t.pending.Commit() }

// abort removes the file; after commit it does nothing.
func (t temporary) abort() error { return t.pending.Abort() }
