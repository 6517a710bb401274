package libtf

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
)

// Options says what to install. The zero value is DefaultVersion for the CPU, from PyPI into the
// user's cache.
type Options struct {
	Version string // "": the wheel's, or else DefaultVersion
	GPU     bool   // with CUDA's libraries
	Wheel   string // a TensorFlow wheel to use instead of downloading it
	Dir     string // "": DefaultDir, the only one that Path looks in
	Python  string // the Python whose pip downloads; "": python3, then python

	Log      *slog.Logger   // nil: none
	Progress func(Progress) // nil: none; calls do not overlap
}

// Progress is how far a stage of an installation is. Each wheel has its own stages.
type Progress struct {
	Stage string // "download", "verify" or "extract"
	Wheel string // the wheel's file name
	Done  int64  // bytes
	Total int64  // bytes; 0 where it is not known
}

// Install puts TensorFlow's library into the cache and returns where. If it is there already,
// Install returns at once. An installation appears whole or not at all: it is made in a folder
// beside its place, checked and then renamed; what an interrupted one left is removed by the next.
// Concurrent calls, from other processes too, do the work once.
func Install(ctx context.Context, opts Options) (Installation, error) {
	i := installer{Options: opts, pins: pinned, freeSpace: freeSpace}
	inst, err := i.install(ctx)
	if err != nil {
		return Installation{}, fmt.Errorf("libtf: install: %w", err)
	}
	return inst, nil
}

// An installer is one call of Install. Tests have their own pins and disks.
type installer struct {
	Options
	pins      map[string][]pin // the wheels by the installation's name, TensorFlow's first
	freeSpace func(dir string) (int64, error)
}

func (i *installer) install(ctx context.Context) (Installation, error) {
	if i.Log == nil {
		i.Log = slog.New(slog.DiscardHandler)
	}
	if i.Progress == nil {
		i.Progress = func(Progress) {}
	}
	if i.Dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return Installation{}, err
		}
		i.Dir = dir
	}
	plan, err := i.plan()
	if err != nil {
		return Installation{}, err
	}
	if inst, err := openInstallation(plan.Dir); err == nil {
		return inst, nil
	}
	wheels, err := i.toDownload(plan)
	if err != nil {
		return Installation{}, err
	}
	if err := os.MkdirAll(i.Dir, 0o755); err != nil {
		return Installation{}, fmt.Errorf("cannot make the cache folder: %w; name another one", err)
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return Installation{}, err
	}
	defer unlock()
	if inst, err := openInstallation(plan.Dir); err == nil {
		return inst, nil // another process has just done it
	}
	return i.build(ctx, plan, wheels)
}

var versionForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+[a-z0-9.]*$`)

// plan settles the version and the place, or says why it cannot be done here.
func (i *installer) plan() (Installation, error) {
	plan := Installation{Version: i.Version, GPU: i.GPU, Arch: wheelArch()}
	if err := supported(runtime.GOOS, runtime.GOARCH); err != nil {
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
		return plan, fmt.Errorf("%q is no version number: want one like %s", plan.Version, DefaultVersion)
	case compareVersions(plan.Version, OldestVersion) < 0:
		return plan, fmt.Errorf("TensorFlow %s is too old: want %s or later", plan.Version, OldestVersion)
	case plan.GPU && plan.Arch != "x86_64":
		return plan, fmt.Errorf("PyPI has no TensorFlow with GPU support for %s: install it without, or build one and set %s to it", plan.Arch, EnvLibrary)
	}
	glibc, err := systemLinker().glibc()
	if err != nil {
		return plan, err
	}
	if need := glibcFor(plan); compareVersions(glibc, need) < 0 {
		return plan, fmt.Errorf("this system's glibc is %s, TensorFlow %s needs %s: use a newer distribution or an older TensorFlow", glibc, plan.Version, need)
	}
	plan.Dir = filepath.Join(i.Dir, plan.name())
	return plan, nil
}

// supported tells whether there are TensorFlow wheels for this system at all.
func supported(goos, goarch string) error {
	if goos == "linux" && (goarch == "amd64" || goarch == "arm64") {
		return nil
	}
	return fmt.Errorf("not supported on %s/%s, only on Linux for amd64 and arm64: get a TensorFlow C library for this system and set %s to it", goos, goarch, EnvLibrary)
}

// glibcFor returns the glibc that an installation needs, by the platform tags of its wheels.
func glibcFor(plan Installation) string {
	since := "2.21"
	if plan.GPU {
		since = "2.20" // whose CUDA wheels are newer than it
	}
	if compareVersions(plan.Version, since) < 0 {
		return "2.17"
	}
	return "2.27"
}

// wheelVersion returns the version of the user's wheel, having checked that it suits.
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
