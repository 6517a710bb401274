//go:build linux && (amd64 || arm64)

package install

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/libtf"
)

// An index is a folder of fake wheels with a fake Python whose pip serves them.
type index struct {
	t    *testing.T
	dir  string
	pins map[string][]pin
}

// The script copies the wheel of each requirement and keeps its arguments, a line for each call.
const fakePython = `#!/bin/sh
cd "$(dirname "$0")" || exit
echo "$*" >> calls
echo "Looking at" "$TMPDIR"
[ -e fail ] && { cat fail >&2; exit 1; }
[ -e hang ] && { : > hanging; exec sleep 60; }
while [ "$1" != --dest ]; do shift; done
dest=$2; shift 2
for req; do
	project=$(printf %s "${req%%[<>=]*}" | tr - _)
	cp "$project"-[0-9]*.whl "$dest" || exit
done
`

func newIndex(t *testing.T) *index {
	x := &index{t: t, dir: t.TempDir(), pins: make(map[string][]pin)}
	require.NoError(t, os.WriteFile(x.path("python"), []byte(fakePython), 0o755))
	return x
}

func (x *index) path(name string) string { return filepath.Join(x.dir, name) }

func (x *index) file(name, body string) {
	x.t.Helper()
	require.NoError(x.t, os.WriteFile(x.path(name), []byte(body), 0o644))
}

// add puts a wheel into the index that is pinned for an installation.
func (x *index) add(installation, name string, w fakeWheel) {
	x.pins[installation] = append(x.pins[installation], w.write(x.t, x.path(name)))
}

// calls returns the arguments of the calls of pip.
func (x *index) calls() []string {
	data, err := os.ReadFile(x.path("calls"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(x.t, err)
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// installer returns one that uses the index, in an empty cache, on a large disk.
func (x *index) installer() *installer {
	return &installer{
		Options:   Options{Dir: filepath.Join(x.t.TempDir(), "cache"), Python: x.path("python")},
		pins:      x.pins,
		freeSpace: func(string) (int64, error) { return 1 << 40, nil },
	}
}

// TensorFlow for the CPU, under the name it has for this machine.
var (
	cpuProject = map[string]string{"x86_64": "tensorflow_cpu", "aarch64": "tensorflow"}[libtf.Arch()]
	cpuWheel   = cpuProject + "-2.21.0-cp312-cp312-manylinux_2_27_" + libtf.Arch() + ".whl"
	cpuName    = "2.21.0-cpu-" + libtf.Arch()
)

func cpuIndex(t *testing.T) *index {
	x := newIndex(t)
	x.add(cpuName, cpuWheel, tensorFlowWheel(cpuProject+"-2.21.0"))
	return x
}

// assertNothing asserts that a cache holds only its lock.
func assertNothing(t *testing.T, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(dir) // it need not be there
	for _, e := range entries {
		assert.Equal(t, ".lock", e.Name())
	}
}

func TestInstall(t *testing.T) {
	x := cpuIndex(t)
	var log strings.Builder
	stages := make(map[string]Progress)
	i := x.installer()
	i.Log = slog.New(slog.NewTextHandler(&log, nil))
	i.Progress = func(p Progress) { stages[p.Stage] = p }
	inst, err := i.install(t.Context())
	require.NoError(t, err)

	assert.Equal(t, libtf.Installation{
		Dir:     filepath.Join(i.Dir, cpuName),
		Version: "2.21.0",
		Arch:    libtf.Arch(),
		Wheels:  []libtf.Wheel{{Name: cpuWheel, SHA256: x.pins[cpuName][0].SHA256, Pinned: true}},
	}, inst)
	assert.Equal(t, []string{
		"install.json",
		"tensorflow/include/tensorflow/c/c_api.h",
		"tensorflow/include/xla/tsl/c/tsl_status.h",
		"tensorflow/libtensorflow_cc.so.2",
		"tensorflow/libtensorflow_framework.so.2",
	}, listFiles(t, inst.Dir))
	assert.FileExists(t, inst.Library())
	assert.FileExists(t, filepath.Join(inst.Dir, "tensorflow/include/tensorflow/c/c_api.h"))
	entries, err := os.ReadDir(i.Dir)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "the installation and the lock")

	require.Len(t, x.calls(), 1)
	for _, want := range []string{"-m pip download", "--no-deps", "--only-binary :all:", "--implementation cp",
		"--python-version 3.12", "--platform manylinux_2_27_" + libtf.Arch(), "==2.21.0"} {
		assert.Contains(t, x.calls()[0], want)
	}
	assert.Contains(t, log.String(), "Looking at "+i.Dir,
		"pip's temporary files are in the cache, and its lines in the log")
	size := x.pins[cpuName][0].Size
	assert.Equal(t, Progress{"verify", cpuWheel, size, size}, stages["verify"])
	assert.Equal(t, stages["extract"].Total, stages["extract"].Done)
	assert.Positive(t, stages["extract"].Done)

	again, err := i.install(t.Context())
	require.NoError(t, err)
	assert.Equal(t, inst, again)
	assert.Len(t, x.calls(), 1, "nothing to do the second time")
}

func TestInstallVersion(t *testing.T) {
	x := newIndex(t)
	name := "tensorflow_cpu_aws-2.15.1"
	x.add("2.15.1-cpu-"+libtf.Arch(), name+"-cp311-cp311-manylinux_2_17_"+libtf.Arch()+".whl", tensorFlowWheel(name))
	i := x.installer()
	i.Version = "2.15.1"
	inst, err := i.install(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "2.15.1-cpu-"+libtf.Arch(), filepath.Base(inst.Dir))
	assert.Contains(t, x.calls()[0], "--python-version 3.11", "2.15 has no wheels for 3.12")
	assert.True(t, strings.HasSuffix(x.calls()[0], " tensorflow-cpu-aws==2.15.1"), "the pin names the project")
}

func TestInstallRepairs(t *testing.T) {
	x := cpuIndex(t)
	i := x.installer()
	inst, err := i.install(t.Context())
	require.NoError(t, err)
	for _, tt := range []struct {
		name  string
		spoil func() error
	}{
		{"library removed", func() error { return os.Remove(inst.Library()) }},
		{"manifest cut", func() error { return os.Truncate(filepath.Join(inst.Dir, libtf.ManifestName), 10) }},
		{"folder empty", func() error { return errors.Join(os.RemoveAll(inst.Dir), os.Mkdir(inst.Dir, 0o755)) }},
		{"killed halfway", func() error {
			stage := filepath.Join(i.Dir, stagePrefix+"1")
			return errors.Join(os.RemoveAll(inst.Dir), os.Mkdir(stage, 0o755),
				os.WriteFile(filepath.Join(stage, "part"), nil, 0o600))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, tt.spoil())
			again, err := i.install(t.Context())
			require.NoError(t, err)
			assert.Equal(t, inst, again)
			assert.FileExists(t, inst.Library())
			entries, err := os.ReadDir(i.Dir)
			require.NoError(t, err)
			assert.Len(t, entries, 2, "the installation and the lock")
		})
	}
}

func TestInstallFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(t *testing.T, x *index, i *installer)
		want  []string
	}{
		{"other digest", func(t *testing.T, x *index, i *installer) { i.pins[cpuName][0].SHA256 = strings.Repeat("0", 64) },
			[]string{cpuWheel, "SHA-256", "download it again"}},
		{"other file", func(t *testing.T, x *index, i *installer) {
			i.pins[cpuName][0].Wheel = cpuProject + "-2.21.0-x_" + libtf.Arch() + ".whl"
		},
			[]string{"pip downloaded " + cpuWheel, "pip config list"}},
		{"no space to begin", func(t *testing.T, x *index, i *installer) {
			i.freeSpace = func(string) (int64, error) { return 5e8, nil }
		}, []string{"not enough space in", "0.5 GB are free, 1.2 GB are needed"}},
		{"no space to extract", func(t *testing.T, x *index, i *installer) {
			free := []int64{2e9, 10} // somebody else fills the disk meanwhile
			i.freeSpace = func(string) (int64, error) { defer func() { free = free[1:] }(); return free[0], nil }
		}, []string{"not enough space in"}},
		{"no library in the wheel", func(t *testing.T, x *index, i *installer) {
			w := tensorFlowWheel("tensorflow_cpu-2.21.0")
			w.members = w.members[1:]
			i.pins[cpuName][0] = w.write(t, x.path(cpuWheel))
		}, []string{"does not hold " + libtf.CCLibrary}},
		{"cache folder is a file", func(t *testing.T, x *index, i *installer) {
			x.file("file", "")
			i.Dir = x.path("file/cache")
		}, []string{"cannot make the cache folder", "not a directory"}},
		{"no such version", func(t *testing.T, x *index, i *installer) {
			x.file("fail", "ERROR: Could not find a version\nERROR: No matching distribution found for tensorflow-cpu==2.21.0\n")
		}, []string{"has no such version", "https://pypi.org"}},
		{"no network", func(t *testing.T, x *index, i *installer) {
			x.file("fail", "WARNING: Retrying\nERROR: Could not install packages: connection refused\n\n[notice] new pip\n")
		}, []string{"exit status 1: ERROR: Could not install packages: connection refused"}},
		{"pip crashes", func(t *testing.T, x *index, i *installer) {
			x.file("fail",
				"ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device\n")
		}, []string{"exit status 1: OSError: [Errno 28] No space left on device"}},
		{"no pip", func(t *testing.T, x *index, i *installer) { x.file("fail", "/usr/bin/python3: No module named pip\n") },
			[]string{"this Python has no pip", "apt install python3-pip"}},
		{"no such Python", func(t *testing.T, x *index, i *installer) { i.Python = x.path("python9") },
			[]string{"python9", "no such file"}},
		{"pip downloads nothing", func(t *testing.T, x *index, i *installer) {
			require.NoError(t, os.WriteFile(i.Python, []byte("#!/bin/sh\n"), 0o755))
		}, []string{"pip downloaded 0 wheels"}},
		{"old version", func(t *testing.T, x *index, i *installer) { i.Version = "2.14.1" },
			[]string{"TensorFlow 2.14.1 is too old: want 2.15 or later"}},
		{"version without digest", func(t *testing.T, x *index, i *installer) {
			i.Version = "2.99.0"
			x.add("2.15.0-cpu-"+libtf.Arch(), "a.whl", tensorFlowWheel("tensorflow_cpu-2.15.0"))
			x.add("2.16.0-cpu-other", "b.whl", tensorFlowWheel("tensorflow_cpu-2.16.0"))
		}, []string{"no SHA-256 is known for the wheels of TensorFlow 2.99.0: take one of 2.15.0, 2.21.0"}},
		{"no version", func(t *testing.T, x *index, i *installer) { i.Version = "--pre" },
			[]string{`"--pre" is not a version number`}},
		{"no such wheel", func(t *testing.T, x *index, i *installer) { i.Wheel = x.path("none.whl") },
			[]string{"none.whl", "no such file"}},
		{"wheel of another project", func(t *testing.T, x *index, i *installer) {
			i.Wheel = x.path("numpy.whl")
			fakeWheel{"numpy-2.0", nil}.write(t, i.Wheel)
		}, []string{"is a wheel of numpy"}},
		{"wheel of another version", func(t *testing.T, x *index, i *installer) {
			i.Wheel = x.path(cpuWheel)
			i.Version = "2.20.0"
		},
			[]string{"is TensorFlow 2.21.0, not 2.20.0"}},
		{"wheel for another machine", func(t *testing.T, x *index, i *installer) {
			other := map[string]string{"x86_64": "aarch64", "aarch64": "x86_64"}[libtf.Arch()]
			i.Wheel = x.path("t-manylinux_2_27_" + other + ".whl")
			tensorFlowWheel("tensorflow-2.21.0").write(t, i.Wheel)
		}, []string{"this machine is " + libtf.Arch()}},
		{"wheel without GPU", func(t *testing.T, x *index, i *installer) {
			i.Wheel, i.GPU = x.path("t.whl"), true
			tensorFlowWheel("tensorflow_cpu-2.21.0").write(t, i.Wheel)
		}, []string{"has no GPU support"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := cpuIndex(t)
			i := x.installer()
			tt.setUp(t, x, i)
			_, err := i.install(t.Context())
			require.Error(t, err)
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "\n", "one line")
			assertNothing(t, i.Dir)
		})
	}
}

func TestInstallReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root writes everywhere")
	}
	i := cpuIndex(t).installer()
	require.NoError(t, os.Mkdir(i.Dir, 0o555))
	_, err := i.install(t.Context())
	require.ErrorIs(t, err, fs.ErrPermission)
	assertNothing(t, i.Dir)
}

func TestInstallWheel(t *testing.T) {
	x := newIndex(t)
	i := x.installer()
	i.Wheel = x.path("renamed.whl")
	tensorFlowWheel("tensorflow-2.22.0").write(t, i.Wheel)
	inst, err := i.install(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "2.22.0", inst.Version, "the wheel's own version")
	assert.False(t, inst.Wheels[0].Pinned)
	assert.FileExists(t, i.Wheel, "the user's file stays")
	assert.Empty(t, x.calls())
}

func TestInstallConcurrently(t *testing.T) {
	x := cpuIndex(t)
	dir := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			i := x.installer()
			i.Dir = dir
			inst, err := i.install(t.Context())
			assert.NoError(t, err)
			assert.FileExists(t, inst.Library())
		})
	}
	wg.Wait()
	assert.Len(t, x.calls(), 1)
}

func TestInstallCancelled(t *testing.T) {
	t.Run("download", func(t *testing.T) {
		x := cpuIndex(t)
		x.file("hang", "")
		i := x.installer()
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := i.install(ctx)
			failed <- err
		}()
		require.Eventually(t, func() bool {
			_, err := os.Stat(x.path("hanging"))
			return err == nil
		}, 10*time.Second, time.Millisecond)

		waiting, stopWaiting := context.WithCancel(t.Context())
		stopWaiting()
		second := x.installer()
		second.Dir = i.Dir
		_, err := second.install(waiting)
		require.ErrorIs(t, err, context.Canceled, "waiting for the lock ends too")
		assert.Len(t, x.calls(), 1)

		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		assertNothing(t, i.Dir)
	})
	for _, stage := range []string{"verify", "extract"} {
		t.Run(stage, func(t *testing.T) {
			i := cpuIndex(t).installer()
			ctx, cancel := context.WithCancel(t.Context())
			i.Progress = func(p Progress) {
				if p.Stage == stage {
					cancel()
				}
			}
			_, err := i.install(ctx)
			require.ErrorIs(t, err, context.Canceled)
			assertNothing(t, i.Dir)
		})
	}
}

func TestInstallGPU(t *testing.T) {
	if libtf.Arch() != "x86_64" {
		i := newIndex(t).installer()
		i.GPU = true
		_, err := i.install(t.Context())
		require.ErrorContains(t, err, "no TensorFlow with GPU support")
		return
	}
	x := gpuIndex(t)
	i := x.installer()
	i.GPU = true
	inst, err := i.install(t.Context())
	require.NoError(t, err)
	assert.Equal(t, gpuName, filepath.Base(inst.Dir))
	assert.Subset(t, listFiles(t, inst.Dir),
		[]string{libtf.CCLibrary, "nvidia/cublas/lib/libcublas.so.12", "nvidia/cuda_nvcc/bin/ptxas"})
	var wheels, calls []string
	for _, w := range inst.Wheels {
		wheels = append(wheels, w.Name[:strings.Index(w.Name, "-")])
		assert.True(t, w.Pinned, w.Name)
	}
	assert.Equal(t, []string{"tensorflow", "nvidia_cublas_cu12", "nvidia_cuda_nvcc_cu12"}, wheels)
	for _, call := range x.calls() {
		calls = append(calls, call[strings.LastIndex(call, " ")+1:])
	}
	assert.Equal(t, []string{"tensorflow==2.21.0", "nvidia-cublas-cu12==12.9.3.13", "nvidia-cuda-nvcc-cu12==12.9.86"},
		calls)

	var manifest libtf.Installation
	data, err := os.ReadFile(filepath.Join(inst.Dir, libtf.ManifestName))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &manifest))
	manifest.Dir = inst.Dir
	assert.Equal(t, inst, manifest)
}

const gpuName = "2.21.0-gpu-x86_64"

func gpuIndex(t *testing.T) *index {
	x := newIndex(t)
	x.add(gpuName, "tensorflow-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl", tensorFlowWheel("tensorflow-2.21.0"))
	x.add(gpuName, "nvidia_cublas_cu12-12.9.3.13-py3-none-manylinux_2_27_x86_64.whl",
		fakeWheel{"nvidia_cublas_cu12-12.9.3.13", []fakeMember{
			{name: "nvidia/cublas/lib/libcublas.so.12", body: "cublas"},
			{name: "nvidia/cublas/include/cublas.h", body: "not needed"},
		}})
	x.add(gpuName, "nvidia_cuda_nvcc_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
		fakeWheel{"nvidia_cuda_nvcc_cu12-12.9.86", []fakeMember{
			{name: "nvidia/cuda_nvcc/bin/ptxas", body: "ptxas", mode: 0o755},
		}})
	return x
}

// The user's own TensorFlow gets the CUDA wheels that are pinned for its version, or none at all.
func TestInstallGPUWheel(t *testing.T) {
	if libtf.Arch() != "x86_64" {
		t.Skip("no GPU wheels for this machine")
	}
	x := gpuIndex(t)
	i := x.installer()
	i.GPU, i.Wheel = true, x.path("own.whl")
	tensorFlowWheel("tensorflow-2.21.0").write(t, i.Wheel)
	inst, err := i.install(t.Context())
	require.NoError(t, err)
	assert.Len(t, x.calls(), 2, "not TensorFlow")
	var pinned []bool
	for _, w := range inst.Wheels {
		pinned = append(pinned, w.Pinned)
	}
	assert.Equal(t, []bool{false, true, true}, pinned)

	i = x.installer()
	i.GPU, i.Wheel = true, x.path("newer.whl")
	tensorFlowWheel("tensorflow-2.99.0").write(t, i.Wheel)
	_, err = i.install(t.Context())
	require.ErrorContains(t, err,
		"no SHA-256 is known for the wheels of TensorFlow 2.99.0: take one of 2.21.0, or set "+libtf.EnvLibrary+" to the "+
			"tensorflow folder of a Python environment")
	assertNothing(t, i.Dir)
	assert.Len(t, x.calls(), 2)
}

func TestPlatforms(t *testing.T) {
	tags := platforms("x86_64")
	assert.Equal(t, "manylinux_2_27_x86_64", tags[0])
	assert.Equal(t, "manylinux1_x86_64", tags[len(tags)-1])
	assert.Less(t, slices.Index(tags, "manylinux_2_25_x86_64"), slices.Index(tags, "manylinux2014_x86_64"),
		"newer wheels first")
	assert.Contains(t, tags, "manylinux2010_x86_64")
}

// The pins must name wheels that pip takes for what Library asks, and that run where it says.
func TestPins(t *testing.T) {
	for _, name := range []string{"2.15.1-cpu-x86_64", "2.15.1-cpu-aarch64", "2.18.1-gpu-x86_64",
		DefaultVersion + "-cpu-x86_64", DefaultVersion + "-cpu-aarch64", DefaultVersion + "-gpu-x86_64"} {
		assert.NotEmpty(t, pinned[name], name)
	}
	form := regexp.MustCompile(`^([A-Za-z0-9_]+)-([0-9.]+(?:post[0-9]+)?)-` +
		`(?:(cp[0-9]+)-cp[0-9]+|py3-none|py2\.py3-none)-([a-z0-9_.]+)\.whl$`)
	for name, wheels := range pinned {
		plan := libtf.Installation{Version: strings.Split(name, "-")[0], GPU: strings.Contains(name, "-gpu-"),
			Arch: strings.Split(name, "-")[2]}
		assert.Equal(t, plan.Name(), name)
		assert.GreaterOrEqual(t, libtf.CompareVersions(plan.Version, OldestVersion), 0, name)
		for i, p := range wheels {
			parts := form.FindStringSubmatch(p.Wheel)
			require.NotNil(t, parts, p.Wheel)
			assert.Regexp(t, "^[0-9a-f]{64}$", p.SHA256, p.Wheel)
			if i == 0 {
				assert.Regexp(t, "^tensorflow(_cpu|_cpu_aws)?$", parts[1])
				assert.Equal(t, plan.Version, parts[2])
				assert.Equal(t, "cp"+strings.ReplaceAll(cpythonFor(plan.Version), ".", ""), parts[3])
				assert.Greater(t, p.Size, int64(1e8), "%s is TensorFlow itself", p.Wheel)
			} else {
				assert.True(t, strings.HasPrefix(parts[1], "nvidia_"), p.Wheel)
			}
			oldest := slices.IndexFunc(platforms(plan.Arch), func(tag string) bool {
				return tag == "manylinux_2_"+strings.TrimPrefix(glibcFor(plan), "2.")+"_"+plan.Arch
			})
			assert.True(t, slices.ContainsFunc(strings.Split(parts[4], "."), func(tag string) bool {
				return slices.Contains(platforms(plan.Arch)[oldest:], tag)
			}), "%s needs a newer glibc than %s", p.Wheel, glibcFor(plan))
		}
		assert.Equal(t, plan.GPU, len(wheels) > 1, name)
	}
}
