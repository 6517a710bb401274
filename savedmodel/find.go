package savedmodel

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/internal/file"
)

const (
	textGraphFile = "saved_model.pbtxt"
	tritonFolder  = "model.savedmodel" // of a version of a model in a repository of Triton's
)

// A NotFoundError reports a path that does not lead to a SavedModel.
type NotFoundError struct {
	Path   string
	Models []string // the folders below that lead to one
	Err    error    // says what is there
}

// Error implements error.
func (e *NotFoundError) Error() string { return e.Err.Error() }

func (e *NotFoundError) Unwrap() error { return e.Err }

// Find returns the folder of the SavedModel that path leads to: the folder itself, its saved_model.pb, a folder of
// numbered versions, as TensorFlow Serving reads and Estimators write, or the folder of a model in Triton's layout
// (NAME/1/model.savedmodel). Of several versions it takes the newest, and returns the others too, from the oldest.
func Find(path string) (dir string, older []string, err error) {
	if err := file.CheckLocal(path); err != nil {
		return "", nil, fmt.Errorf("open %s: %w", path, err)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", nil, err
	case !info.IsDir():
		dir, err = findByFile(path)
		return dir, nil, err
	case holdsGraph(path):
		return path, nil, nil
	case exists(filepath.Join(path, textGraphFile)):
		return "", nil, textGraph(path)
	case holdsGraph(filepath.Join(path, tritonFolder)):
		return filepath.Join(path, tritonFolder), nil, nil
	}
	versions := versionsIn(path)
	if n := len(versions); n > 0 {
		return versions[n-1], versions[:n-1], nil
	}
	return "", nil, notFound(path)
}

func textGraph(dir string) error {
	return fmt.Errorf("%s holds a text %s, which is not supported: convert it to %s", dir, textGraphFile, GraphFile)
}

// findByFile returns the folder of a saved_model.pb. Any other file is an error that says what it is.
func findByFile(path string) (dir string, err error) {
	name := filepath.Base(path)
	switch name {
	case GraphFile:
		return filepath.Dir(path), nil
	case textGraphFile:
		return "", textGraph(filepath.Dir(path))
	}
	advice := "name the folder that holds " + GraphFile
	switch kind := file.KindOfPath(path); {
	case kind == file.SavedModel:
		return "", fmt.Errorf("%s has the name of a frozen graph, not a SavedModel, but the content of a %s: "+
			"give it that name in a folder of its own, and name the folder", path, GraphFile)
	case kind == file.GraphDef, kind == file.TextGraph, kind == file.TFLite:
		return "", fmt.Errorf("%w: %s", &file.KindError{Path: path, Kind: kind}, advice)
	case kind.IsArchive():
		err = fmt.Errorf("%w, and %s", &file.KindError{Path: path, Kind: kind}, advice)
	case kind != "":
		err = &file.KindError{Path: path, Kind: kind}
	default:
		err = fmt.Errorf("%s is a file: %s", path, advice)
	}
	return "", &NotFoundError{Path: path, Err: err}
}

// versionsIn returns the SavedModels of the numbered folders in a folder, from the oldest. A version that holds none
// is not complete.
func versionsIn(dir string) []string {
	type version struct {
		number uint64
		dir    string
	}
	var found []version
	for _, name := range folders(dir) {
		number, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			continue
		}
		path := filepath.Join(dir, name)
		if below := filepath.Join(path, tritonFolder); !holdsGraph(path) && holdsGraph(below) {
			path = below
		}
		if holdsGraph(path) {
			found = append(found, version{number, path})
		}
	}
	slices.SortStableFunc(found, func(a, b version) int { return cmp.Compare(a.number, b.number) })
	var dirs []string
	for _, v := range found {
		dirs = append(dirs, v.dir)
	}
	return dirs
}

// notFound returns the error of a folder that holds no SavedModel, with what people have there in its place.
func notFound(dir string) error {
	text := fmt.Sprintf("%s is not a SavedModel: it has no %s", dir, GraphFile)
	const most = 8
	var below []string
	for _, name := range folders(dir) {
		path := filepath.Join(dir, name)
		if holdsGraph(path) || holdsGraph(filepath.Join(path, tritonFolder)) || len(versionsIn(path)) > 0 {
			below = append(below, name)
		}
	}
	names := slices.Clone(below)
	if n := len(below); n > most {
		names = append(names[:most], fmt.Sprintf("and %d more", n-most))
	}
	indexes, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "[^.]*.index"))
	switch {
	case len(below) > 0:
		text += fmt.Sprintf("; below it are the models %s: name one", strings.Join(names, ", "))
	case holdsGraph(filepath.Dir(filepath.Clean(dir))):
		text += fmt.Sprintf("; the folder above it, %s, is one", filepath.Dir(filepath.Clean(dir)))
	case len(indexes) > 0:
		text += fmt.Sprintf("; it holds the checkpoint %s", strings.TrimSuffix(filepath.Base(indexes[0]), ".index"))
	default:
		text += strangers(dir)
	}
	return &NotFoundError{Path: dir, Models: below, Err: errors.New(text)}
}

// strangers says what the files of a folder are that are known to be no part of a SavedModel.
func strangers(dir string) string {
	const mostFiles, most = 100, 3
	entries, _ := os.ReadDir(dir)
	var found []string
	for _, e := range entries[:min(len(entries), mostFiles)] {
		kind := file.KindOfPath(filepath.Join(dir, e.Name()))
		if kind != "" && kind != file.Empty && !file.IsHidden(e.Name()) && len(found) < most {
			found = append(found, fmt.Sprintf("; %s is %s", e.Name(), kind))
		}
	}
	return strings.Join(found, "")
}

// folders returns the names of the folders in a folder, and of links to them, without what is hidden.
func folders(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err == nil && info.IsDir() && !file.IsHidden(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

func holdsGraph(dir string) bool { return exists(filepath.Join(dir, GraphFile)) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
