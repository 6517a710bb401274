package libtf

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
)

// GPUs is what the NVIDIA driver says of itself and its devices.
type GPUs struct {
	Driver  string `json:"driver,omitempty"` // its version; "" where there is none
	Devices []GPU  `json:"devices,omitempty"`
}

// A GPU is one device. What the driver did not tell is empty.
type GPU struct {
	Name              string `json:"name"`
	ComputeCapability string `json:"compute_capability,omitempty"`
	Memory            string `json:"memory,omitempty"`
}

// hasNVIDIA tells whether an NVIDIA driver is here.
func hasNVIDIA() bool {
	if _, err := os.Stat(procNVIDIA); err == nil {
		return true
	}
	_, ok := systemLinker().find(driverLibrary, nil) // WSL has no such folder
	return ok
}

const procNVIDIA = "/proc/driver/nvidia"

// findGPUs asks nvidia-smi, or else reads what the driver keeps in /proc.
func findGPUs(ctx context.Context) (GPUs, error) {
	if !hasNVIDIA() {
		return GPUs{}, nil
	}
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return readProcNVIDIA(procNVIDIA), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second) // it hangs with a driver that does
	defer cancel()
	out, err := exec.CommandContext(ctx, smi, "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader").Output()
	if err != nil {
		return readProcNVIDIA(procNVIDIA), fmt.Errorf("%s: %w: %s", smi, err, strings.TrimSpace(string(out)))
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

// readProcNVIDIA reads the driver's folder in /proc; what is not there stays empty.
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

// cudaLibraries are those that a GPU build of TensorFlow opens when it looks for devices, with
// their packages' folders. It opens them by name, so they are not among what it needs to load.
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

// driverLibrary comes with NVIDIA's driver, not with CUDA.
const driverLibrary = "libcuda.so.1"

// missingCUDA returns the libraries that the GPU build at path lacks to use a GPU.
func (l linker) missingCUDA(path string) []string {
	var lacking []string
	packages := filepath.Join(filepath.Dir(filepath.Dir(path)), "nvidia")
	for _, lib := range cudaLibraries {
		// Any version counts: which one TensorFlow opens is compiled into it.
		if !l.hasAny(lib.name, filepath.Join(packages, lib.folder, "lib")) {
			lacking = append(lacking, lib.name)
		}
	}
	if _, ok := l.find(driverLibrary, nil); !ok {
		lacking = append(lacking, driverLibrary)
	}
	return lacking
}

func (l linker) hasAny(name, dir string) bool {
	for _, dir := range append([]string{dir}, l.dirs...) {
		if found, _ := filepath.Glob(filepath.Join(dir, name+"*")); len(found) > 0 {
			return true
		}
	}
	return false
}

// isGPUBuild tells whether a TensorFlow library looks for CUDA's libraries: its search path, or
// that of libtensorflow_framework, names NVIDIA's packages.
func isGPUBuild(path string) bool {
	framework := filepath.Join(filepath.Dir(path), filepath.Base(frameworkLibrary))
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
