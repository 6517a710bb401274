package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// temporary is an output file that has another name until it is complete.
type temporary struct{ path, name string }

// newTemporary makes the temporary file beside path, so that renaming it cannot fail half-way and a
// folder that is missing is found at once.
func newTemporary(path string) (temporary, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return temporary{}, writing(path, err)
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return temporary{}, writing(path, err)
	}
	return temporary{path, f.Name()}, nil
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

func (t temporary) commit() error { return os.Rename(t.name, t.path) }

// abort removes the file; after commit it does nothing.
func (t temporary) abort() error {
	if err := os.Remove(t.name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
