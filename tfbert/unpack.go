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
	"unicode"
)

// What a zip may unpack to, so that a small one does not fill the disk. Trained weights hardly shrink. Only
// zeros shrink to a thousandth.
const (
	maxMembers = 4096
	maxGrowth  = 64       // times the size of the zip
	minUnpack  = 64 << 20 // bytes that a zip of any size may unpack to
)

// unpack writes the files of a checkpoint in a zip into a new folder, without the folders that they are in.
// It returns an error if the zip would write anywhere else or unpacks to more than it should.
func unpack(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return err
	}
	members, err := checkpointMembers(z.File, info.Size())
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, m := range members {
		if err := unpackFile(ctx, m, root); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

// checkpointMembers returns the files of a checkpoint in a zip of a size.
func checkpointMembers(files []*zip.File, size int64) (members []*zip.File, err error) {
	most := max(minUnpack, uint64(size)*maxGrowth)
	left, found := most, false
	for _, f := range files {
		path := slashed(f.Name)
		if !filepath.IsLocal(filepath.FromSlash(path)) || strings.ContainsFunc(path, unicode.IsControl) {
			return nil, fmt.Errorf("member %q would land outside its folder: refused", f.Name)
		}
		if f.FileInfo().IsDir() || !wanted(memberName(f)) {
			continue
		}
		switch {
		case !f.Mode().IsRegular():
			return nil, fmt.Errorf("%s is not a plain file (%v): refused", f.Name, f.Mode())
		case len(members) == maxMembers:
			return nil, fmt.Errorf("more than %d files of checkpoints in this zip: refused", maxMembers)
		case f.UncompressedSize64 > left:
			return nil, fmt.Errorf("%s: this zip of %d bytes unpacks to more than %d, which no checkpoint does: "+
				"unpack it yourself if it is right", f.Name, size, most)
		}
		left -= f.UncompressedSize64
		members = append(members, f)
		found = found || strings.HasSuffix(memberName(f), ".index")
	}
	if !found {
		return nil, errors.New("no checkpoint in this zip: it has no *.index file")
	}
	return members, nil
}

// slashed returns the path of a member with slashes. Some archivers use backslashes.
func slashed(name string) string { return strings.ReplaceAll(name, `\`, "/") }

// memberName returns the name of a member without the folders it is in.
func memberName(f *zip.File) string { return path.Base(slashed(f.Name)) }

func wanted(name string) bool {
	return name == configFile || name == vocabFile || name == "checkpoint" ||
		strings.HasSuffix(name, ".index") || strings.Contains(name, ".data-")
}

// unpackFile writes a member into root. The reader returns an error if the member inflates beyond the size that
// it declares.
func unpackFile(ctx context.Context, f *zip.File, root *os.Root) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := root.OpenFile(memberName(f), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
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
