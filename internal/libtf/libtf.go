// Package libtf obtains and finds TensorFlow's C library.
//
// [Install] takes it out of a TensorFlow wheel, which the user's own pip downloads, and puts it in
// the user's cache. [Path] finds the library to load: the one TFBERT_LIBTENSORFLOW names, an
// installed one, or one that is there anyway. [Diagnose] says what this machine has and lacks.
//
// The package loads nothing and needs no cgo; package tf does the loading.
package libtf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

const (
	// DefaultVersion is the TensorFlow version that Install takes when none is asked for, and the
	// one tfbert is tested with.
	DefaultVersion = "2.21.0"
	// OldestVersion is the oldest TensorFlow version that tfbert runs with.
	OldestVersion = "2.15"
)

const manifestName = "install.json"

// Names of files in a TensorFlow wheel.
const (
	ccLibrary        = "tensorflow/libtensorflow_cc.so.2"
	frameworkLibrary = "tensorflow/libtensorflow_framework.so.2"
)

// An Installation is a TensorFlow library that Install put in place. Its folder keeps the layout
// of the wheels, because the libraries find one another by relative paths.
type Installation struct {
	Dir     string  `json:"-"` // the folder that holds tensorflow/ and, for a GPU, nvidia/
	Version string  `json:"version"`
	GPU     bool    `json:"gpu"`
	Arch    string  `json:"arch"`   // as in the wheel's name: x86_64 or aarch64
	Wheels  []Wheel `json:"wheels"` // TensorFlow's first
}

// A Wheel is a Python package file that an installation was made from.
type Wheel struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Pinned bool   `json:"pinned"` // whether tfbert knew the digest beforehand
}

// Library returns the path of the shared library to load.
func (i Installation) Library() string {
	return filepath.Join(i.Dir, filepath.FromSlash(ccLibrary))
}

// Include returns the folder to give a C compiler for #include "tensorflow/c/c_api.h".
func (i Installation) Include() string {
	return filepath.Join(i.Dir, "tensorflow", "include")
}

// name is the installation's folder below the cache's.
func (i Installation) name() string {
	kind := "cpu"
	if i.GPU {
		kind = "gpu"
	}
	return i.Version + "-" + kind + "-" + i.Arch
}

// openInstallation reads the installation in dir. A folder without its manifest or a library is
// none, whoever took it away: the error is then fs.ErrNotExist.
func openInstallation(dir string) (Installation, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return Installation{}, err
	}
	inst := Installation{Dir: dir}
	if err := json.Unmarshal(data, &inst); err != nil {
		return Installation{}, fmt.Errorf("%s: %w", filepath.Join(dir, manifestName), err)
	}
	for _, name := range []string{ccLibrary, frameworkLibrary} {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return Installation{}, err
		}
	}
	return inst, nil
}

// writeManifest makes dir an installation. It comes last, after the files it speaks for.
func writeManifest(dir string, inst Installation) error {
	data, err := json.MarshalIndent(inst, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, manifestName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// installations lists what is installed below root for this machine's architecture, in no order.
func installations(root string) ([]Installation, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []Installation
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // the lock, an installation under way
		}
		if inst, err := openInstallation(filepath.Join(root, e.Name())); err == nil && inst.Arch == wheelArch() {
			found = append(found, inst)
		}
	}
	return found, err
}

// DefaultDir returns the folder that installations are kept in: tfbert/libtensorflow in the user's
// cache folder.
func DefaultDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w", err)
	}
	return filepath.Join(cache, "tfbert", "libtensorflow"), nil
}

// wheelArch is this machine's architecture as wheels name it.
func wheelArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// compareVersions orders version numbers by their numeric parts; what follows them ("rc1", ".post1")
// does not count.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		if d := versionPart(as, i) - versionPart(bs, i); d != 0 {
			return d
		}
	}
	return 0
}

func versionPart(parts []string, i int) int {
	if i >= len(parts) {
		return 0
	}
	digits := parts[i]
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, _ := strconv.Atoi(digits) // no digits: 0
	return n
}
