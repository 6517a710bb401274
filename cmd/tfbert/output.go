package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tfbert/go/internal/file"
)

// createOutput begins an output file, which has another name until it is committed. It comes before the work, so
// that a missing folder is found at once.
func createOutput(path string) (*file.Pending, error) {
	p, err := file.Create(path)
	return p, writing(path, err)
}

// writing makes an error name the file that a person asked for in place of the temporary one.
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
