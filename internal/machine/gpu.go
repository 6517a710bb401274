package machine

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tfbert/go/internal/libtf"
)

// GPUs is what the NVIDIA driver says about itself and its devices.
type GPUs struct {
	Driver  string `json:"driver,omitempty"` // its version; "" if there is none
	Devices []GPU  `json:"devices,omitempty"`
}

// A GPU is one device. A field is empty if the driver does not tell it.
type GPU struct {
	Name              string `json:"name"`
	ComputeCapability string `json:"compute_capability,omitempty"`
	Memory            string `json:"memory,omitempty"`
}

// FindGPUs asks nvidia-smi, or else reads what the driver keeps in /proc.
func FindGPUs(ctx context.Context) (GPUs, error) {
	if !libtf.HasNVIDIA() {
		return GPUs{}, nil
	}
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return readProcNVIDIA(libtf.DriverDir), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second) // it hangs with a driver that does
	defer cancel()
	const query = "--query-gpu=name,compute_cap,driver_version,memory.total"
	out, err := exec.CommandContext(ctx, smi, query, "--format=csv,noheader").Output()
	if err != nil {
		return readProcNVIDIA(libtf.DriverDir), fmt.Errorf("%s: %w: %s", smi, err, strings.TrimSpace(string(out)))
	}
	return parseSMI(strings.NewReader(string(out)))
}

// parseSMI reads nvidia-smi's answer.
func parseSMI(r io.Reader) (GPUs, error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = 4
	rows.TrimLeadingSpace = true
	all, err := rows.ReadAll()
	if err != nil {
		return GPUs{}, fmt.Errorf("nvidia-smi: %w", err)
	}
	var gpus GPUs
	for _, row := range all {
		gpus.Driver = row[2]
		gpus.Devices = append(gpus.Devices, GPU{Name: row[0], ComputeCapability: row[1], Memory: row[3]})
	}
	return gpus, nil
}

var driverVersion = regexp.MustCompile(`Kernel Module(?: for \S+)?\s+([0-9.]+)`)

// readProcNVIDIA reads the driver's folder in /proc. What is missing there stays empty.
func readProcNVIDIA(dir string) GPUs {
	var gpus GPUs
	version, _ := os.ReadFile(filepath.Join(dir, "version"))
	if m := driverVersion.FindSubmatch(version); m != nil {
		gpus.Driver = string(m[1])
	}
	infos, _ := filepath.Glob(filepath.Join(dir, "gpus", "*", "information"))
	for _, info := range infos {
		data, _ := os.ReadFile(info)
		for line := range strings.Lines(string(data)) {
			if name, ok := strings.CutPrefix(line, "Model:"); ok {
				gpus.Devices = append(gpus.Devices, GPU{Name: strings.TrimSpace(name)})
			}
		}
	}
	return gpus
}

// cudaLibraries are the libraries that a GPU build of TensorFlow opens when it looks for devices, with the
// folders of their packages. TensorFlow loads without them.
var cudaLibraries = []struct{ folder, name string }{
	{"cuda_runtime", "libcudart.so"},
	{"cublas", "libcublas.so"},
	{"cublas", "libcublasLt.so"},
	{"cuda_cupti", "libcupti.so"},
	{"cudnn", "libcudnn.so"},
	{"cufft", "libcufft.so"},
	{"cusolver", "libcusolver.so"},
	{"cusparse", "libcusparse.so"},
	{"nccl", "libnccl.so"},
}

// missingCUDA returns the libraries that the GPU build at path lacks to use a GPU.
func missingCUDA(l libtf.Linker, path string) []string {
	var lacking []string
	packages := filepath.Join(filepath.Dir(filepath.Dir(path)), "nvidia")
	for _, lib := range cudaLibraries {
		// Any version counts: which one TensorFlow opens is compiled into it.
		if !hasAny(l, lib.name, filepath.Join(packages, lib.folder, "lib")) {
			lacking = append(lacking, lib.name)
		}
	}
	if _, ok := l.Find(libtf.DriverLibrary, nil); !ok {
		lacking = append(lacking, libtf.DriverLibrary)
	}
	return lacking
}

func hasAny(l libtf.Linker, name, dir string) bool {
	for _, dir := range append([]string{dir}, l.Dirs...) {
		if found, _ := filepath.Glob(filepath.Join(dir, name+"*")); len(found) > 0 {
			return true
		}
	}
	return false
}

// isGPUBuild reports whether a TensorFlow library looks for CUDA's libraries: its search path, or that of
// libtensorflow_framework, names NVIDIA's packages.
func isGPUBuild(path string) bool {
	framework := filepath.Join(filepath.Dir(path), filepath.Base(libtf.FrameworkLibrary))
	for _, path := range []string{path, framework} {
		lib, err := readLibrary(path)
		if err != nil {
			continue
		}
		for _, dir := range lib.runpath {
			if strings.Contains(dir, "/nvidia/") {
				return true
			}
		}
	}
	return false
}
