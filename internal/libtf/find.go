package libtf

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// EnvLibrary is the environment variable that names the library to load, or a folder with it.
const EnvLibrary = "TFBERT_LIBTENSORFLOW"

// A Candidate is a place where a TensorFlow library may be.
type Candidate struct {
	Path   string // the library; "" if there is none
	Source string // the place, such as "$TFBERT_LIBTENSORFLOW"
	Err    error  // why it cannot be used; nil if it can
}

// MarshalJSON writes the error as its text.
func (c Candidate) MarshalJSON() ([]byte, error) {
	out := struct {
		Path   string `json:"path,omitempty"`
		Source string `json:"source"`
		Error  string `json:"error,omitempty"`
	}{Path: c.Path, Source: c.Source}
	if c.Err != nil {
		out.Error = c.Err.Error()
	}
	return json.Marshal(out)
}

// A NotFoundError reports that there is no TensorFlow library in any of the places.
type NotFoundError struct {
	Candidates []Candidate
}

func (e *NotFoundError) Error() string {
	looked := make([]string, len(e.Candidates))
	for i, c := range e.Candidates {
		looked[i] = c.Source + ": " + c.Err.Error()
	}
	return fmt.Sprintf("no TensorFlow library found; run `tfbert lib install` or set %s (%s)",
		EnvLibrary, strings.Join(looked, "; "))
}

// Path returns the TensorFlow library to load: the first of the Candidates that can be used. If
// TFBERT_LIBTENSORFLOW names one that cannot, it returns that error rather than another library.
func Path() (string, error) {
	c, err := Choose(Candidates())
	return c.Path, err
}

// Choose returns the first candidate that can be used, by the rules of Path.
func Choose(candidates []Candidate) (Candidate, error) {
	for _, c := range candidates {
		if c.Err == nil {
			return c, nil
		}
		if c.Source == sourceEnv && !errors.Is(c.Err, errNotSet) {
			return Candidate{}, fmt.Errorf("%s: %w", EnvLibrary, c.Err)
		}
	}
	return Candidate{}, &NotFoundError{candidates}
}

const sourceEnv = "$" + EnvLibrary

var errNotSet = errors.New("not set")

// Candidates returns the TensorFlow libraries in the order of preference, also those that cannot be used:
//
//  1. the one that TFBERT_LIBTENSORFLOW names, a file or a folder;
//  2. the installed ones: with CUDA first if there is an NVIDIA driver, and last if there is not;
//     DefaultVersion first, then from the newest to the oldest;
//  3. the one in the active Python virtual environment;
//  4. those that the dynamic linker finds by their well-known names.
func Candidates() []Candidate {
	return slices.Concat(fromEnv(), fromCache(), fromVirtualEnv(), fromLinker())
}

// names are the names of libraries with TensorFlow's C API: the first is that of a wheel, the others are
// those of Google's libtensorflow archives.
var names = []string{"libtensorflow_cc.so.2", "libtensorflow.so.2", "libtensorflow.so"}

func fromEnv() []Candidate {
	path := os.Getenv(EnvLibrary)
	if path == "" {
		return []Candidate{{Source: sourceEnv, Err: errNotSet}}
	}
	path, err := resolve(path)
	return []Candidate{{Path: path, Source: sourceEnv, Err: err}}
}

// resolve returns the library that a user's path means.
func resolve(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return path, err
	}
	if !info.IsDir() {
		return path, CheckLibrary(path)
	}
	for _, dir := range []string{".", "tensorflow", "lib"} {
		for _, name := range names {
			lib := filepath.Join(path, dir, name)
			if _, err := os.Stat(lib); err == nil {
				return lib, CheckLibrary(lib)
			}
		}
	}
	return path, fmt.Errorf("%s: no %s in this folder", path, strings.Join(names, " or "))
}

func fromCache() []Candidate {
	const source = "tfbert lib install"
	root, err := DefaultDir()
	if err != nil {
		return []Candidate{{Source: source, Err: err}}
	}
	found, err := installations(root)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("nothing installed in %s", root)
	}
	if err != nil {
		return []Candidate{{Source: source, Err: err}}
	}
	slices.SortFunc(found, preferred(HasNVIDIA()))
	candidates := make([]Candidate, len(found))
	for i, inst := range found {
		candidates[i] = Candidate{inst.Library(), source, CheckLibrary(inst.Library())}
	}
	return candidates
}

// preferred orders installations for a machine with or without a GPU.
func preferred(gpu bool) func(a, b Installation) int {
	last := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return func(a, b Installation) int {
		return cmp.Or(
			last(a.GPU != gpu)-last(b.GPU != gpu),
			last(a.Version != DefaultVersion)-last(b.Version != DefaultVersion),
			CompareVersions(b.Version, a.Version),
		)
	}
}

func fromVirtualEnv() []Candidate {
	const source = "$VIRTUAL_ENV"
	env := os.Getenv("VIRTUAL_ENV")
	if env == "" {
		return []Candidate{{Source: source, Err: errNotSet}}
	}
	pattern := filepath.Join(env, "lib", "python3*", "site-packages", filepath.FromSlash(CCLibrary))
	found, _ := filepath.Glob(pattern)
	if len(found) == 0 {
		return []Candidate{{Source: source, Err: fmt.Errorf("no %s", pattern)}}
	}
	return []Candidate{{found[0], source, CheckLibrary(found[0])}}
}

func fromLinker() []Candidate {
	const source = "dynamic linker"
	l := SystemLinker()
	for _, name := range names {
		if path, ok := l.Find(name, nil); ok {
			return []Candidate{{Path: path, Source: source}}
		}
	}
	err := fmt.Errorf("no %s in %s", strings.Join(names, " or "), strings.Join(l.Dirs, ":"))
	return []Candidate{{Source: source, Err: err}}
}

const (
	// DriverDir is the folder in which NVIDIA's driver describes itself.
	DriverDir = "/proc/driver/nvidia"
	// DriverLibrary comes with NVIDIA's driver, not with CUDA.
	DriverLibrary = "libcuda.so.1"
)

// HasNVIDIA reports whether there is an NVIDIA driver.
func HasNVIDIA() bool {
	if _, err := os.Stat(DriverDir); err == nil {
		return true
	}
	_, ok := SystemLinker().Find(DriverLibrary, nil) // WSL has no such folder
	return ok
}
