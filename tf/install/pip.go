package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pip downloads wheels through the pip of a Python, for indexes that need what only pip knows.
type pip struct {
	python string            // a command; "": python3, then python
	line   func(line string) // gets what pip prints
	grown  func(size int64)  // gets the size of the wheels so far, every so often
}

// ErrNoPip is in the chain of the error if there is no Python that has pip. [Options.Wheel] needs neither.
var ErrNoPip = errors.New("install Python 3 with pip " +
	"(Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip)")

// platforms returns the tags of the wheels to take, best first: those of a system with glibc 2.27,
// and of every older one. Pip takes only these tags and does not add the older ones.
func platforms(arch string) (tags []string) {
	for minor := 27; minor >= 5; minor-- {
		tags = append(tags, fmt.Sprintf("manylinux_2_%d_%s", minor, arch))
		if old, ok := map[int]string{17: "manylinux2014_", 12: "manylinux2010_", 5: "manylinux1_"}[minor]; ok {
			tags = append(tags, old+arch)
		}
	}
	return tags
}

// download fetches the wheels that reqs name, without what they depend on, and returns their
// paths. They are chosen for the given CPython and arch, not for the Python that runs pip, so that
// everybody gets the same files. Pip keeps its temporary files in dir too: that is the disk whose
// space was checked, and the caller removes it.
func (p pip) download(ctx context.Context, dir, cpython, arch string, reqs ...string) ([]string, error) {
	python, err := p.find()
	if err != nil {
		return nil, err
	}
	wheels, tmp := filepath.Join(dir, "wheels"), filepath.Join(dir, "tmp")
	for _, d := range []string{wheels, tmp} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	args := []string{"-m", "pip", "download", "--no-input", "--progress-bar", "off",
		"--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--python-version", cpython}
	for _, tag := range platforms(arch) {
		args = append(args, "--platform", tag)
	}
	args = append(args, "--dest", wheels)
	out := &lines{each: p.line}
	cmd := exec.CommandContext(ctx, python, append(args, reqs...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "PIP_DISABLE_PIP_VERSION_CHECK=1", "PYTHONUNBUFFERED=1")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second

	stop := p.watch(dir)
	err = cmd.Run()
	stop()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s -m pip download %s: %w", python, strings.Join(reqs, " "), explain(out.last, err))
	}
	return filepath.Glob(filepath.Join(wheels, "*.whl"))
}

// find returns the Python to run.
func (p pip) find() (string, error) {
	if p.python != "" {
		return exec.LookPath(p.python)
	}
	for _, name := range []string{"python3", "python"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no python3 in PATH: %w", ErrNoPip)
}

// explain returns what the user can do about a failed pip, from the last error that it printed.
func explain(last string, err error) error {
	switch {
	case strings.Contains(last, "No module named pip"):
		return fmt.Errorf("this Python has no pip: %w", ErrNoPip)
	case strings.Contains(last, "No matching distribution found"):
		return errors.New("the package index has no such version for this machine: look up the versions at " +
			"https://pypi.org/project/tensorflow-cpu/#history, and check pip's own settings (pip config list)")
	case last != "":
		return fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// watch reports the size of the wheels below dir until the function it returns is called. Pip's
// own progress bar needs a terminal.
func (p pip) watch(dir string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				p.grown(wheelBytes(dir))
			}
		}
	}()
	return func() { close(quit); <-done }
}

// wheelBytes is the size of the wheels below dir, each counted once: pip copies a finished one from
// its temporary folder.
func wheelBytes(dir string) int64 {
	sizes := make(map[string]int64)
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".whl" {
			return nil // files come and go while pip works
		}
		if info, err := d.Info(); err == nil {
			sizes[d.Name()] = max(sizes[d.Name()], info.Size())
		}
		return nil
	})
	var sum int64
	for _, size := range sizes {
		sum += size
	}
	return sum
}

// lines cuts what is written to it into lines.
type lines struct {
	each func(line string)
	last string // the last line that tells an error, or the last one
	rest []byte
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.rest = rest
		text := strings.TrimSpace(string(line))
		if text == "" {
			continue
		}
		if !tellsError(l.last) || tellsError(text) {
			l.last = text
		}
		l.each(text)
	}
}

// tellsError reports whether a line of pip says what went wrong. A bare "ERROR: Exception:" does not:
// a traceback follows, and its last line does.
func tellsError(line string) bool {
	return strings.HasPrefix(line, "ERROR: ") && line != "ERROR: Exception:"
}
