// Package models keeps the models of the user's cache: those that were pulled, by name, and the SavedModels that
// checkpoints were exported as, which the next use makes again where they are removed.
package models

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

// The folders of the cache.
const (
	pulledFolder = "pulled" // NAME/pulled.json, and the model in NAME/NAME
	exportFolder = "models" // those of tfbert.Cached
)

const (
	manifestFile = "pulled.json"
	maxManifest  = 1 << 20
	stagePrefix  = ".pulling-"
)

// The forms of a model.
const (
	FormCheckpoint  = "checkpoint"
	FormSafetensors = "safetensors"
	FormSavedModel  = "SavedModel"
)

// A Store is a cache of models.
type Store struct{ dir string }

// Open returns the store in the user's cache, which need not exist yet.
func Open() (*Store, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no cache folder: %w", err)
	}
	return &Store{filepath.Join(cache, "tfbert")}, nil
}

// A Model is a model in the store.
type Model struct {
	Name      string `json:"name"`
	Form      string `json:"form"`
	Exported  bool   `json:"exported"`            // made from a checkpoint, and not pulled
	Graph     string `json:"graph,omitempty"`     // "" for a checkpoint, which has none yet
	Precision string `json:"precision,omitempty"` // of the weights
	Size      int64  `json:"size"`                // bytes on the disk
	Source    string `json:"source"`
	Sum       string `json:"sum,omitempty"` // "h1:…" of a module, "sha256:…" of an archive; "" for a folder

	Time time.Time `json:"time"` // of the pull, or the last use of an export
	Path string    `json:"path"` // the model's folder
}

// A NotFoundError reports a name that no model in the store has.
type NotFoundError struct {
	Name string
	Have []string // the names of those that were pulled
}

// Error implements error.
func (e *NotFoundError) Error() string {
	text := fmt.Sprintf("no model %s was pulled", e.Name)
	if len(e.Have) > 0 {
		text += "; there are " + strings.Join(e.Have, ", ")
	}
	return text
}

// An ExistsError reports a name that another model has.
type ExistsError struct{ Name, Source string }

// Error implements error.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("there is a model %s already, from %s", e.Name, e.Source)
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// IsName reports whether a model may have a name, which is neither a path nor an address.
func IsName(name string) bool { return nameForm.MatchString(name) }

// Find returns a model that was pulled, or a *NotFoundError.
func (s *Store) Find(name string) (*Model, error) {
	if IsName(name) {
		m, err := s.readPulled(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
	}
	missing := &NotFoundError{Name: name}
	list, err := s.pulled()
	for _, m := range list {
		missing.Have = append(missing.Have, m.Name)
	}
	return nil, cmp.Or[error](err, missing)
}

// List returns all models, first those that were pulled, by name.
func (s *Store) List() ([]Model, error) {
	list, err := s.pulled()
	if err != nil {
		return nil, err
	}
	exports, err := s.exports()
	return append(list, exports...), err
}

// Get returns a model of List by its name, or a *NotFoundError.
func (s *Store) Get(name string) (*Model, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(m Model) bool { return m.Name == name }); i >= 0 {
		return &list[i], nil
	}
	return s.Find(name)
}

func (s *Store) pulled() (list []Model, err error) {
	names, err := folders(filepath.Join(s.dir, pulledFolder))
	for _, name := range names {
		m, err := s.readPulled(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody has removed a part of it, or is doing so
		}
		if err != nil {
			return nil, err
		}
		list = append(list, *m)
	}
	return list, err
}

func (s *Store) readPulled(name string) (*Model, error) {
	dir := filepath.Join(s.dir, pulledFolder, name)
	path := filepath.Join(dir, manifestFile)
	text, err := file.Read(path, maxManifest)
	if err != nil {
		return nil, err
	}
	m := &Model{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.Name, m.Path = name, filepath.Join(dir, name)
	if m.Size, err = size(dir); err != nil {
		return nil, err
	}
	return m, m.describe()
}

// exports returns the models that tfbert.Cached has made.
func (s *Store) exports() (list []Model, err error) {
	root := filepath.Join(s.dir, exportFolder)
	names, err := folders(root)
	for _, name := range names {
		dir := filepath.Join(root, name)
		info, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile))
		if err != nil {
			continue // a part of one, which the next use replaces
		}
		used := info.ModTime()
		if info, err := os.Stat(dir); err == nil && info.ModTime().After(used) {
			used = info.ModTime()
		}
		m := Model{Name: name, Form: FormSavedModel, Exported: true, Path: dir, Time: used}
		if m.Size, err = size(dir); err != nil {
			return nil, err
		}
		if err := m.describe(); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, err
}

// describe adds what a SavedModel says of itself.
func (m *Model) describe() error {
	if m.Form != FormSavedModel {
		return nil
	}
	settings, err := tfbert.ReadSettings(m.Path)
	if err != nil {
		return err
	}
	if m.Graph = settings.Graph; m.Graph == "" {
		m.Graph = "its own" // of another exporter
	} else {
		m.Precision = settings.Precision.String()
	}
	m.Source = cmp.Or(m.Source, settings.Source)
	return nil
}

// folders returns the names of the folders in one that need not exist.
func folders(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// size returns the bytes of the files below a folder. Files may go meanwhile.
func size(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return ignoreMissing(err)
	})
	return sum, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Remove removes a model of List.
func (s *Store) Remove(ctx context.Context, name string) (*Model, error) {
	m, err := s.Get(name)
	if err != nil {
		return nil, err
	}
	if m.Exported {
		return m, os.RemoveAll(m.Path)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Without its manifest it does not count any more, even if removing the rest fails.
	dir := filepath.Dir(m.Path)
	if err := os.Remove(filepath.Join(dir, manifestFile)); err != nil {
		return nil, ignoreMissing(err)
	}
	return m, os.RemoveAll(dir)
}

// underWay is the time within which an export that is not complete may still become so.
const underWay = time.Hour

// Leftover is what Prune frees: an export, or a part of one or of a pull that was interrupted.
type Leftover struct {
	Path string    `json:"path"`
	Size int64     `json:"size"`
	Time time.Time `json:"time"` // of the last use or change
}

// Leftovers returns the exports that nobody has used for a time, and what interrupted exports and pulls have left.
func (s *Store) Leftovers(unused time.Duration) (list []Leftover, err error) {
	exports, err := s.exports()
	if err != nil {
		return nil, err
	}
	complete := map[string]bool{}
	for _, m := range exports {
		complete[m.Path] = true
		if time.Since(m.Time) >= unused {
			list = append(list, Leftover{m.Path, m.Size, m.Time})
		}
	}
	for _, folder := range []string{exportFolder, pulledFolder} {
		entries, err := os.ReadDir(filepath.Join(s.dir, folder))
		if ignoreMissing(err) != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(s.dir, folder, e.Name())
			if !e.IsDir() || complete[path] || folder == pulledFolder && !strings.HasPrefix(e.Name(), stagePrefix) {
				continue
			}
			l := Leftover{Path: path}
			if l.Time, err = changed(path); err != nil {
				return nil, err
			}
			if l.Size, err = size(path); err != nil {
				return nil, err
			}
			if time.Since(l.Time) >= underWay {
				list = append(list, l)
			}
		}
	}
	return list, nil
}

// changed returns the last change of a file or folder below a folder.
func changed(dir string) (last time.Time, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
		return ignoreMissing(err)
	})
	return last, err
}

// Free removes what Leftovers returned.
func (s *Store) Free(l Leftover) error { return os.RemoveAll(l.Path) }

// lock waits until no other pull or removal is under way.
func (s *Store) lock(ctx context.Context) (unlock func() error, err error) {
	dir := filepath.Join(s.dir, pulledFolder)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("cannot make the cache folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, ".lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("cannot lock the cache folder: %w", err)
	}
	return lock.Unlock, nil
}
