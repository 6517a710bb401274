// Package install installs TensorFlow's C library, as the command `tfbert lib install` does. A service can call it
// before it loads the library, so that its users need not install anything:
//
//	path, err := install.Library(ctx, install.Options{})
//	if err != nil {
//		return err
//	}
//	return tf.Load(path)
//
// The library comes out of a TensorFlow wheel. It comes from the package index that pip would ask, with pip's settings:
// its files and the variables PIP_INDEX_URL and the like. Python is not needed, unless an index asks for what only pip
// knows, such as passwords of a keyring. Nothing is downloaded whose SHA-256 is not known beforehand.
package install

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/machine"
)

const (
	// DefaultVersion is the TensorFlow version that [Library] installs by default.
	DefaultVersion = libtf.DefaultVersion
	// OldestVersion is the oldest TensorFlow version that package tf runs with.
	OldestVersion = libtf.OldestVersion
)

// Options describe what to install. The zero value is DefaultVersion for the CPU, from PyPI into the
// user's cache.
type Options struct {
	Version string // "": that of Wheel, or else DefaultVersion
	GPU     bool   // with CUDA's libraries
	Wheel   string // a TensorFlow wheel to use instead of downloading it
	Dir     string // "": the folder of the user's cache that tf.Load looks in
	Python  string // a Python whose pip downloads; "": none, unless the index needs pip

	Log      *slog.Logger   // nil: none
	Progress func(Progress) // nil: none; calls do not overlap
}

// Progress is how far a stage of an installation is. Each wheel has its own stages.
type Progress struct {
	Stage string // "download", "verify" or "extract"
	Wheel string // the wheel's file name
	Done  int64  // bytes
	Total int64  // bytes; 0 if it is not known
}

// Library installs TensorFlow's library and returns its path. If it is installed already, Library returns at once.
// An installation appears whole or not at all. The next one removes what an interrupted one left. Concurrent calls,
// also from other processes, do the work once.
func Library(ctx context.Context, opts Options) (path string, err error) {
	i := installer{Options: opts, pins: pinned, freeSpace: freeSpace}
	inst, err := i.install(ctx)
	if err != nil {
		return "", fmt.Errorf("install: %w", err)
	}
	return inst.Library(), nil
}

// An installer is one call of Library. Tests have their own pins and disks.
type installer struct {
	Options
	pins      map[string][]pin // the wheels by the installation's name, TensorFlow's first
	freeSpace func(dir string) (int64, error)
}

func (i *installer) install(ctx context.Context) (libtf.Installation, error) {
	if i.Log == nil {
		i.Log = slog.New(slog.DiscardHandler)
	}
	if i.Progress == nil {
		i.Progress = func(Progress) {}
	}
	if i.Dir == "" {
		dir, err := libtf.DefaultDir()
		if err != nil {
			return libtf.Installation{}, err
		}
		i.Dir = dir
	}
	plan, err := i.plan()
	if err != nil {
		return libtf.Installation{}, err
	}
	if inst, err := libtf.Open(plan.Dir); err == nil {
		return inst, nil
	}
	wheels, err := i.toDownload(plan)
	if err != nil {
		return libtf.Installation{}, err
	}
	if err := os.MkdirAll(i.Dir, 0o755); err != nil {
		return libtf.Installation{}, fmt.Errorf("cannot make the cache folder: %w; name another one", err)
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return libtf.Installation{}, err
	}
	defer unlock()
	if inst, err := libtf.Open(plan.Dir); err == nil {
		return inst, nil // another process has just done it
	}
	return i.build(ctx, plan, wheels)
}

var versionForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+[a-z0-9.]*$`)

// plan settles the version and the place. It returns an error if the installation cannot be used here.
func (i *installer) plan() (libtf.Installation, error) {
	plan := libtf.Installation{Version: i.Version, GPU: i.GPU, Arch: libtf.Arch()}
	if err := machine.Supported(runtime.GOOS, runtime.GOARCH); err != nil {
		return plan, err
	}
	if i.Wheel != "" {
		version, err := i.wheelVersion(plan.Arch)
		if err != nil {
			return plan, err
		}
		plan.Version = version
	}
	plan.Version = cmp.Or(plan.Version, DefaultVersion)
	switch {
	case !versionForm.MatchString(plan.Version):
		return plan, fmt.Errorf("%q is not a version number: want one like %s", plan.Version, DefaultVersion)
	case libtf.CompareVersions(plan.Version, OldestVersion) < 0:
		return plan, fmt.Errorf("TensorFlow %s is too old: want %s or later", plan.Version, OldestVersion)
	case plan.GPU && plan.Arch != "x86_64":
		return plan, fmt.Errorf("PyPI has no TensorFlow with GPU support for %s: "+
			"install it without, or build one and set %s to it", plan.Arch, libtf.EnvLibrary)
	}
	glibc, err := machine.Glibc()
	if err != nil {
		return plan, err
	}
	if need := glibcFor(plan); libtf.CompareVersions(glibc, need) < 0 {
		return plan, fmt.Errorf("this system's glibc is %s, and TensorFlow %s needs %s: "+
			"use a newer distribution or an older TensorFlow", glibc, plan.Version, need)
	}
	plan.Dir = filepath.Join(i.Dir, plan.Name())
	return plan, nil
}

// glibcFor returns the glibc that an installation needs, by the platform tags of its wheels.
func glibcFor(plan libtf.Installation) string {
	since := "2.21"
	if plan.GPU {
		since = "2.20" // whose CUDA wheels are newer than it
	}
	if libtf.CompareVersions(plan.Version, since) < 0 {
		return "2.17"
	}
	return "2.27"
}

// wheelVersion returns the version of the user's wheel, or an error if the wheel cannot be used.
func (i *installer) wheelVersion(arch string) (string, error) {
	w, err := openWheel(i.Wheel)
	if err != nil {
		return "", err
	}
	defer w.Close()
	switch {
	case w.project != "tensorflow" && w.project != "tensorflow_cpu":
		return "", fmt.Errorf("%s is a wheel of %s: want one of tensorflow_cpu or tensorflow", i.Wheel, w.project)
	case i.GPU && w.project == "tensorflow_cpu":
		return "", fmt.Errorf("%s has no GPU support: want a wheel of tensorflow", i.Wheel)
	case i.Version != "" && i.Version != w.version:
		return "", fmt.Errorf("%s is TensorFlow %s, not %s", i.Wheel, w.version, i.Version)
	case w.arch() != "" && w.arch() != arch:
		return "", fmt.Errorf("%s is for %s, this machine is %s", i.Wheel, w.arch(), arch)
	}
	return w.version, nil
}

// lock waits until no other installation is under way in Dir.
func (i *installer) lock(ctx context.Context) (unlock func() error, err error) {
	lock := flock.New(filepath.Join(i.Dir, ".lock"))
	ok, err := lock.TryLock()
	if err == nil && !ok {
		i.Log.Info("another installation is under way: waiting for it", "dir", i.Dir)
		_, err = lock.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock the cache folder: %w", err)
	}
	return lock.Unlock, nil
}
