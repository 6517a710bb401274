package file

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Pending is a file that is written under a temporary name in the folder of its own name, so that nobody sees a
// part of it:
//
//	p, err := file.Create(path)
//	if err != nil {
//		return err
//	}
//	defer p.Abort()
//	… // write to p
//	return p.Commit()
//
// Several files appear together, or none does, if each is closed before the first is committed.
type Pending struct {
	*os.File
	path   string // the name to be
	temp   string // the name until then
	closed bool
	done   bool // committed or aborted
}

// Create creates the temporary file for path. The errors of a Pending name path, not the temporary file.
func Create(path string) (*Pending, error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-"+rand.Text())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	p := &Pending{File: f, path: path, temp: name}
	if err != nil {
		return nil, p.named("create", err)
	}
	return p, nil
}

// IsTemporary reports whether a name is one that Create gives a file until it is committed.
func IsTemporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, ".tmp-")
}

// Path returns the name that the file is to have.
func (p *Pending) Path() string { return p.path }

// Write implements io.Writer.
func (p *Pending) Write(b []byte) (int, error) {
	n, err := p.File.Write(b)
	return n, p.named("write", err)
}

// WriteAt implements io.WriterAt.
func (p *Pending) WriteAt(b []byte, offset int64) (int, error) {
	n, err := p.File.WriteAt(b, offset)
	return n, p.named("write", err)
}

// Close completes the file on its disk. An error that comes only now, such as a full disk, comes before any file has
// its name. A second Close does nothing.
func (p *Pending) Close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	err := p.File.Sync()
	if closeErr := p.File.Close(); err == nil {
		err = closeErr
	}
	return p.named("write", err)
}

// Commit closes the file and renames it to its own name. It replaces a file of that name.
func (p *Pending) Commit() error {
	if p.done {
		return p.named("commit", fs.ErrClosed)
	}
	if err := p.Close(); err != nil {
		return err
	}
	if err := os.Rename(p.temp, p.path); err != nil {
		return p.named("write", err)
	}
	p.done = true
	return nil
}

// Abort removes the file. After Commit it does nothing.
func (p *Pending) Abort() error {
	if p.done {
		return nil
	}
	p.done = true
	if !p.closed {
		p.closed = true
		_ = p.File.Close() // of a file that is not kept
	}
	if err := os.Remove(p.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // which names the file that stays
	}
	return nil
}

// named returns err with the file's own name in place of the temporary one.
func (p *Pending) named(op string, err error) error {
	var file *fs.PathError
	var link *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &file):
		err = file.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return &fs.PathError{Op: op, Path: p.path, Err: err}
}
