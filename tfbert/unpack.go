package tfbert

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// unpack takes a checkpoint's files out of a zip into a new folder, whatever folder they are in
// there.
func unpack(ctx context.Context, file, dir string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	found := false
	for _, f := range z.File {
		name := path.Base(f.Name)
		if f.FileInfo().IsDir() || !wanted(name) {
			continue
		}
		if err := unpackFile(ctx, f, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		found = found || strings.HasSuffix(name, ".index")
	}
	if !found {
		return errors.New("no checkpoint in this zip: it has no *.index file")
	}
	return nil
}

func wanted(name string) bool {
	return name == configFile || name == vocabFile || name == "checkpoint" ||
		strings.HasSuffix(name, ".index") || strings.Contains(name, ".data-")
}

func unpackFile(ctx context.Context, f *zip.File, to string) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, &contextReader{ctx, r})
	return errors.Join(err, w.Close())
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
