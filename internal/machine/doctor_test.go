package machine

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/libtf"
)

func TestDiagnose(t *testing.T) {
	root := bareSystem(t)

	r := Diagnose(t.Context())
	assert.Nil(t, r.Library)
	assert.Contains(t, strings.Join(r.Problems, "\n"), "run `tfbert lib install`")
	assert.Positive(t, r.CPU.Count)
	assert.NotEmpty(t, r.CPU.Features)
	assert.Greater(t, r.Memory, int64(1<<28))

	inst := libtf.Installation{Version: "2.20.0", Arch: libtf.Arch()}
	inst.Dir = filepath.Join(root, inst.Name())
	compileC(t, filepath.Join(inst.Dir, libtf.FrameworkLibrary))
	lost := filepath.Join(t.TempDir(), "liblost.so.3")
	compileC(t, lost)
	compileC(t, inst.Library(), lost)
	require.NoError(t, inst.Record(inst.Dir))
	r = Diagnose(t.Context())
	assert.Equal(t, &Library{
		Path:    inst.Library(),
		Source:  "tfbert lib install",
		Version: "2.20.0",
		Missing: []MissingLibrary{{"liblost.so.3", "libtensorflow_cc.so.2"}},
	}, r.Library)
	assert.Contains(t, strings.Join(r.Problems, "\n"), "liblost.so.3, which libtensorflow_cc.so.2 needs, is missing")
	data, err := json.Marshal(r)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"missing":[{"name":"liblost.so.3","needed_by":"libtensorflow_cc.so.2"}]`)
}

func TestLibraryProblems(t *testing.T) {
	gpu := GPUs{Driver: "550", Devices: []GPU{{Name: "H100"}}}
	for _, tt := range []struct {
		name string
		gpus GPUs
		lib  Library
		want []string
	}{
		{"CPU", GPUs{}, Library{}, nil},
		{"GPU build on a CPU", GPUs{},
			Library{GPU: true, MissingForGPU: []string{"libcudart.so.12", libtf.DriverLibrary}}, nil},
		{"CPU build with a GPU", gpu, Library{}, []string{"`tfbert lib install --gpu`"}},
		{"GPU build with a GPU", gpu, Library{GPU: true}, nil},
		{"no CUDA", gpu, Library{GPU: true, MissingForGPU: []string{"libcudart.so.12"}},
			[]string{"libcudart.so.12 is missing, so the GPU stays unused: run `tfbert lib install --gpu`"}},
		{"no driver library", gpu, Library{GPU: true, MissingForGPU: []string{libtf.DriverLibrary}},
			[]string{"install NVIDIA's driver"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Report{GPUs: tt.gpus, Library: &tt.lib}
			problems := r.libraryProblems()
			require.Len(t, problems, len(tt.want))
			for i, want := range tt.want {
				assert.Contains(t, problems[i], want)
			}
		})
	}
}

// TensorFlow is kept from a GPU whose libraries it would miss, and from nothing else.
func TestCheckGPU(t *testing.T) {
	gpu := GPUs{Devices: []GPU{{Name: "H200"}}}
	lacking := &Library{GPU: true, MissingForGPU: []string{"libcudart.so.12", "libcublas.so.12"}}
	require.EqualError(t, (&Report{GPUs: gpu, Library: lacking}).CheckGPU(),
		"TensorFlow may end the process when it looks for the GPU without libcudart.so.12, libcublas.so.12: "+
			"set CUDA_VISIBLE_DEVICES=-1 to run on the CPU")
	for name, r := range map[string]Report{
		"no library": {GPUs: gpu}, "no GPU": {Library: lacking},
		"CPU build": {GPUs: gpu, Library: &Library{}}, "all": {GPUs: gpu, Library: &Library{GPU: true}},
		"no driver": {
			GPUs: gpu, Library: &Library{GPU: true, MissingForGPU: []string{"libcudart.so.12", libtf.DriverLibrary}},
		},
	} {
		assert.NoError(t, r.CheckGPU(), name)
	}
}

func TestParseMemTotal(t *testing.T) {
	assert.Equal(t, int64(16384<<10), parseMemTotal(strings.NewReader("MemTotal:       16384 kB\nMemFree: 1 kB\n")))
	assert.Zero(t, parseMemTotal(strings.NewReader("")))
}

func TestSupported(t *testing.T) {
	for system, want := range map[string]bool{
		"linux/amd64": true, "linux/arm64": true,
		"linux/386": false, "darwin/arm64": false, "windows/amd64": false,
	} {
		goos, goarch, _ := strings.Cut(system, "/")
		err := Supported(goos, goarch)
		if want {
			assert.NoError(t, err, system)
			continue
		}
		require.ErrorContains(t, err, "not supported on "+system)
		assert.ErrorContains(t, err, libtf.EnvLibrary)
	}
}
