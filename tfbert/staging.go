package tfbert

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
)

// staging is a folder beside the model to be, on the same disk, so that a complete model in it can be renamed
// to its name.
type staging struct {
	target    string // the model, absolute and without links
	overwrite bool
	dir       string
	lock      *flock.Flock // of dir, while it is in use
	made      []string     // folders above that were not there, from the innermost
}

// newStaging makes a staging folder for a model in the folder target. If target exists it must be empty, or
// hold a model that may be overwritten.
func newStaging(target string, overwrite bool) (*staging, error) {
	if err := checkTarget(target, overwrite); err != nil {
		return nil, err
	}
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	if resolved, err := filepath.EvalSymlinks(target); err == nil {
		target = resolved
	}
	s := &staging{target: target, overwrite: overwrite}
	parent := filepath.Dir(target)
	for p := parent; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		s.made = append(s.made, p)
	}
	if err = os.MkdirAll(parent, 0o777); err == nil {
		sweep(target)
		s.dir, err = os.MkdirTemp(parent, stagingPrefix(target)+"*")
	}
	if err == nil {
		s.lock = flock.New(s.path(lockFile))
		_, err = s.lock.TryLock()
	}
	if err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

const (
	lockFile = "lock"
	replaced = ".replaced" // at the end of the name of a model that is being replaced
)

func stagingPrefix(target string) string { return "." + filepath.Base(target) + ".tmp-" }

// sweep removes what exports to the same target have left that were killed. A model that one of them has moved aside,
// without having put another in its place, is put back. Errors do not matter: what stays is in nobody's way.
func sweep(target string) {
	parent := filepath.Dir(target)
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stagingPrefix(target)) {
			continue
		}
		path := filepath.Join(parent, e.Name())
		aside := strings.HasSuffix(path, replaced)
		unlock, stale := abandoned(strings.TrimSuffix(path, replaced))
		if !stale {
			continue
		}
		if aside {
			_ = os.Rename(path, target) // which fails if there is one
		}
		_ = os.RemoveAll(path)
		unlock()
	}
}

// youngest is the age from which on a staging folder that is not locked is nobody's. It may not be locked yet.
const youngest = time.Hour

// abandoned reports whether no process uses a staging folder.
func abandoned(dir string) (unlock func(), ok bool) {
	unlock = func() {}
	info, err := os.Stat(dir)
	if err != nil {
		return unlock, errors.Is(err, fs.ErrNotExist) // only a model that was moved aside is left
	}
	if _, err := os.Stat(filepath.Join(dir, lockFile)); err != nil {
		return unlock, time.Since(info.ModTime()) > youngest
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	if ok, err := lock.TryLock(); err != nil || !ok {
		return unlock, false
	}
	return func() { _ = lock.Unlock() }, true
}

func checkTarget(dir string, overwrite bool) error {
	if err := file.CheckLocal(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	switch {
	case dir == "":
		return errors.New("no directory for the model is named")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0 && !overwrite:
		return &ExistsError{Dir: dir}
	case len(entries) > 0:
		// Only a SavedModel is ever removed, in case that a directory was named by mistake.
		if _, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile)); err != nil {
			return fmt.Errorf("%s is not a SavedModel and will not be overwritten", dir)
		}
	}
	return nil
}

// path returns the path of a file or folder in the staging folder.
func (s *staging) path(name string) string { return filepath.Join(s.dir, name) }

// publish renames a folder to the model's name. It moves a model that is overwritten aside first, so that one
// of the two is whole at any time.
func (s *staging) publish(name string) error {
	if !s.overwrite {
		_ = os.Remove(s.target) // an empty folder may be in the way
		return os.Rename(s.path(name), s.target)
	}
	aside := s.dir + replaced
	switch err := os.Rename(s.target, aside); {
	case errors.Is(err, fs.ErrNotExist):
		return os.Rename(s.path(name), s.target)
	case err != nil:
		return err
	}
	if err := os.Rename(s.path(name), s.target); err != nil {
		return errors.Join(err, os.Rename(aside, s.target))
	}
	return os.RemoveAll(aside)
}

// remove removes the staging folder, and the folders above that were made for it and are empty.
func (s *staging) remove() {
	if s.lock != nil {
		defer func() { _ = s.lock.Unlock() }()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // nothing is lost by what stays
	}
	for _, p := range s.made {
		_ = os.Remove(p) // which a folder with a model in it refuses
	}
}
