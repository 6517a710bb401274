package install

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tfbert/go/internal/libtf"
)

// Disk space that an installation takes while it is under way: one wheel at a time, which pip, where it is needed,
// also copies once, and what comes out of all.
const (
	cpuSpace = 1_200_000_000
	gpuSpace = 8_000_000_000
)

const stagePrefix = ".installing-"

// build downloads wheels and makes the planned installation. The caller holds the lock.
func (i *installer) build(ctx context.Context, plan libtf.Installation, wheels []pin) (libtf.Installation, error) {
	stale, err := filepath.Glob(filepath.Join(i.Dir, stagePrefix+"*"))
	if err != nil {
		return libtf.Installation{}, err
	}
	for _, dir := range stale { // whoever made it held the lock, and is gone
		i.Log.Info("removing what an interrupted installation left", "dir", dir)
		if err := os.RemoveAll(dir); err != nil {
			return libtf.Installation{}, err
		}
	}
	stage, err := os.MkdirTemp(i.Dir, stagePrefix)
	if err != nil {
		return libtf.Installation{}, err
	}
	defer os.RemoveAll(stage)

	tree := filepath.Join(stage, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return libtf.Installation{}, err
	}
	if plan.Wheels, err = i.fill(ctx, stage, tree, plan, wheels); err != nil {
		return libtf.Installation{}, err
	}
	if err := plan.Record(tree); err != nil {
		return libtf.Installation{}, err
	}
	if err := os.RemoveAll(plan.Dir); err != nil { // an incomplete one, if any
		return libtf.Installation{}, err
	}
	if err := os.Rename(tree, plan.Dir); err != nil {
		return libtf.Installation{}, err
	}
	return plan, nil
}

// fill extracts the user's wheel, if there is one, and those to download into tree.
func (i *installer) fill(
	ctx context.Context, stage, tree string, plan libtf.Installation, download []pin,
) ([]libtf.Wheel, error) {
	space := int64(cpuSpace)
	if plan.GPU {
		space = gpuSpace
	}
	if err := i.checkSpace(space); err != nil {
		return nil, err
	}
	var wheels []libtf.Wheel
	if i.Wheel != "" {
		wheel, err := i.unpack(ctx, i.Wheel, tree)
		if err != nil {
			return nil, err
		}
		wheels = append(wheels, wheel)
	}
	for _, p := range download {
		dir := filepath.Join(stage, "download")
		path, err := i.download(ctx, dir, plan, p)
		if err != nil {
			return nil, err
		}
		wheel, err := i.unpack(ctx, path, tree)
		if err != nil {
			return nil, err
		}
		if err := os.RemoveAll(dir); err != nil { // makes room for the next
			return nil, err
		}
		wheels = append(wheels, wheel)
	}
	return wheels, nil
}

// download downloads a wheel into dir: from the package index, or by pip if the user names a Python or the index needs
// it.
func (i *installer) download(ctx context.Context, dir string, plan libtf.Installation, p pin) (string, error) {
	if i.Python != "" {
		return i.downloadByPip(ctx, dir, plan, p)
	}
	i.Log.Info("downloading", "wheel", p.Wheel)
	path, err := i.fetch(ctx, dir, p)
	needs, ok := errors.AsType[*needsPipError](err)
	if !ok {
		return path, err
	}
	i.Log.Warn("downloading by pip, which knows more about package indexes", "because", needs.reason)
	path, err = i.downloadByPip(ctx, dir, plan, p)
	if err != nil && ctx.Err() == nil {
		return "", fmt.Errorf("%s; by pip: %w", needs.reason, err)
	}
	return path, err
}

// fetch downloads a wheel from the indexes of pip's settings.
func (i *installer) fetch(ctx context.Context, dir string, p pin) (string, error) {
	s := readSettings()
	client, err := s.client()
	if err != nil {
		return "", err
	}
	x := packageIndex{s, client, func(done, total int64) {
		i.Progress(Progress{"download", p.Wheel, done, cmp.Or(total, p.Size)})
	}}
	return x.download(ctx, dir, p)
}

// downloadByPip lets pip download a wheel into dir.
func (i *installer) downloadByPip(ctx context.Context, dir string, plan libtf.Installation, p pin) (string, error) {
	i.Log.Info("downloading by pip", "wheel", p.Wheel)
	pip := pip{
		python: i.Python,
		line:   func(line string) { i.Log.Info(line, "from", "pip") },
		grown:  func(size int64) { i.Progress(Progress{"download", p.Wheel, size, p.Size}) },
	}
	paths, err := pip.download(ctx, dir, cpythonFor(plan.Version), plan.Arch, p.requirement())
	switch {
	case err != nil:
		return "", err
	case len(paths) != 1:
		return "", fmt.Errorf("pip downloaded %d wheels for %s: want one", len(paths), p.requirement())
	case filepath.Base(paths[0]) != p.Wheel:
		return "", fmt.Errorf("pip downloaded %s where PyPI has %s: check pip's own settings (pip config list)",
			filepath.Base(paths[0]), p.Wheel)
	}
	return paths[0], nil
}

// cpythonFor returns the CPython whose wheels to take. The libraries do not depend on it, but the
// wheels do; those for 3.12 begin with TensorFlow 2.16.
func cpythonFor(version string) string {
	if libtf.CompareVersions(version, "2.16") < 0 {
		return "3.11"
	}
	return "3.12"
}

// unpack verifies a wheel and extracts it into tree.
func (i *installer) unpack(ctx context.Context, path, tree string) (libtf.Wheel, error) {
	wheel, err := i.verify(ctx, path)
	if err != nil {
		return libtf.Wheel{}, err
	}
	w, err := openWheel(path)
	if err != nil {
		return libtf.Wheel{}, err
	}
	defer w.Close()
	files, size := w.members()
	if strings.HasPrefix(w.project, "tensorflow") {
		for _, name := range []string{libtf.CCLibrary, libtf.FrameworkLibrary} {
			if _, ok := w.record[name]; !ok {
				return libtf.Wheel{}, fmt.Errorf("%s does not hold %s: want a Linux wheel of TensorFlow %s or later",
					path, name, OldestVersion)
			}
		}
	}
	if err := i.checkSpace(size); err != nil {
		return libtf.Wheel{}, err
	}
	i.Log.Info("extracting", "wheel", wheel.Name, "files", len(files), "bytes", size)
	root, err := os.OpenRoot(tree)
	if err != nil {
		return libtf.Wheel{}, err
	}
	defer root.Close()
	return wheel, w.extract(ctx, root, i.meter("extract", wheel.Name, size))
}

// verify compares a wheel with its pin, if there is one.
func (i *installer) verify(ctx context.Context, path string) (libtf.Wheel, error) {
	f, err := os.Open(path)
	if err != nil {
		return libtf.Wheel{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return libtf.Wheel{}, err
	}
	wheel := libtf.Wheel{Name: filepath.Base(path)}
	digest := sha256.New()
	metered := &meteredReader{ctx, f, i.meter("verify", wheel.Name, info.Size())}
	if _, err := io.CopyBuffer(digest, metered, make([]byte, 1<<20)); err != nil {
		return libtf.Wheel{}, err
	}
	wheel.SHA256 = hex.EncodeToString(digest.Sum(nil))
	if p, ok := findPin(i.pins, wheel.Name); ok {
		if p.SHA256 != wheel.SHA256 {
			return libtf.Wheel{}, fmt.Errorf("%s has the SHA-256 %s, but PyPI's has %s: "+
				"it is damaged or another one; download it again", path, wheel.SHA256, p.SHA256)
		}
		wheel.Pinned = true
	}
	if !wheel.Pinned {
		i.Log.Info("no SHA-256 is known for this wheel: its files are checked against its own RECORD",
			"wheel", wheel.Name, "sha256", wheel.SHA256)
	}
	return wheel, nil
}

// checkSpace returns an error if the disk does not have enough space.
func (i *installer) checkSpace(need int64) error {
	free, err := i.freeSpace(i.Dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", i.Dir, err)
	}
	if free < need {
		return fmt.Errorf("not enough space in %s: %.1f GB are free, %.1f GB are needed; make room or name another folder",
			i.Dir, float64(free)/1e9, float64(need)/1e9)
	}
	return nil
}

// meter returns a function that adds up sizes and reports them.
func (i *installer) meter(stage, wheel string, total int64) func(n int) {
	var mu sync.Mutex
	p := Progress{Stage: stage, Wheel: wheel, Total: total}
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		p.Done += int64(n)
		i.Progress(p)
	}
}
