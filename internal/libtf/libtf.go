// Package libtf finds TensorFlow's C library: the one that TFBERT_LIBTENSORFLOW names, one that package
// tf/install has installed, or one that the system has.
//
// It needs no cgo. Package tf loads the library.
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

	"github.com/tfbert/go/internal/file"
)

const (
	// DefaultVersion is the TensorFlow version that is installed by default. tfbert is tested with it.
	DefaultVersion = "2.21.0"
	// OldestVersion is the oldest TensorFlow version that tfbert runs with.
	OldestVersion = "2.15"
)

// ManifestName is the file that makes a folder an installation.
const ManifestName = "install.json"

// Names of files in a TensorFlow wheel.
const (
	CCLibrary        = "tensorflow/libtensorflow_cc.so.2"
	FrameworkLibrary = "tensorflow/libtensorflow_framework.so.2"
)

// An Installation is a TensorFlow library that package tf/install put in place. Its folder keeps the layout
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
	return filepath.Join(i.Dir, filepath.FromSlash(CCLibrary))
}

// Name returns the installation's folder below the cache's.
func (i Installation) Name() string {
	kind := "cpu"
	if i.GPU {
		kind = "gpu"
	}
	return i.Version + "-" + kind + "-" + i.Arch
}

// Open reads the installation in dir. The error is fs.ErrNotExist if its manifest or one of its libraries
// is missing.
func Open(dir string) (Installation, error) {
	manifest := filepath.Join(dir, ManifestName)
	data, err := file.Read(manifest, 1<<20)
	if err != nil {
		return Installation{}, err
	}
	inst := Installation{Dir: dir}
	if err := json.Unmarshal(data, &inst); err != nil {
		return Installation{}, fmt.Errorf("%s: %w", manifest, err)
	}
	for _, name := range []string{CCLibrary, FrameworkLibrary} {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return Installation{}, err
		}
	}
	return inst, nil
}

// Record writes the manifest, which makes dir an installation. It must be called last.
func (i Installation) Record(dir string) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, ManifestName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
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

// installations returns what is installed below root for this machine's architecture, in no order.
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
		if inst, err := Open(filepath.Join(root, e.Name())); err == nil && inst.Arch == Arch() {
			found = append(found, inst)
		}
	}
	return found, err
}

// DefaultDir returns the folder of the installations: tfbert/libtensorflow in the user's cache folder.
func DefaultDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w", err)
	}
	return filepath.Join(cache, "tfbert", "libtensorflow"), nil
}

// Arch returns this machine's architecture as wheels name it.
func Arch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// CompareVersions compares version numbers by their numeric parts. It ignores what follows these, such as
// "rc1" or ".post1".
func CompareVersions(a, b string) int {
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
