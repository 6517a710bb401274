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
	Unused  string `json:"unused,omitempty"` // why there are no Devices, though there is a driver
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
	return gpuFinder{libtf.SystemLinker(), libtf.DriverDir, "/dev"}.find(ctx)
}

// managementLibrary comes with NVIDIA's driver. Its other half, the kernel's module, is also seen in containers that
// were not given a GPU, which lack this library.
const managementLibrary = "libnvidia-ml.so.1"

// A gpuFinder has the places where a driver and its GPUs are found.
type gpuFinder struct {
	linker            libtf.Linker
	driverDir, devDir string
}

func (f gpuFinder) find(ctx context.Context) (GPUs, error) {
	gpus := readProcNVIDIA(f.driverDir)
	if _, ok := f.linker.Find(managementLibrary, nil); !ok {
		return GPUs{Driver: gpus.Driver, Unused: managementLibrary + ", which is a part of NVIDIA's driver, is missing"}, nil
	}
	if v, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set && (v == "" || strings.HasPrefix(v, "-1")) {
		return GPUs{Driver: gpus.Driver, Unused: "CUDA_VISIBLE_DEVICES hides them"}, nil
	}
	var smiErr error
	if smi, err := exec.LookPath("nvidia-smi"); err == nil { // run by root, it also makes devices that are missing
		var asked GPUs
		if asked, smiErr = askSMI(ctx, smi); smiErr == nil {
			gpus = asked
		}
	}
	if len(gpus.Devices) > 0 && !f.hasDevices() {
		return gpus, fmt.Errorf("there is a GPU, but no device %s: start the container with its GPUs, "+
			"or run nvidia-modprobe", filepath.Join(f.devDir, "nvidia0"))
	}
	return gpus, smiErr
}

// hasDevices reports whether a program can reach a GPU: by the driver's devices, or by that of WSL.
func (f gpuFinder) hasDevices() bool {
	for _, pattern := range []string{"nvidia[0-9]*", "dxg"} {
		if found, _ := filepath.Glob(filepath.Join(f.devDir, pattern)); len(found) > 0 {
			return true
		}
	}
	return false
}

func askSMI(ctx context.Context, smi string) (GPUs, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second) // it hangs with a driver that does
	defer cancel()
	const query = "--query-gpu=name,compute_cap,driver_version,memory.total"
	out, err := exec.CommandContext(ctx, smi, query, "--format=csv,noheader").Output()
	if err != nil {
		return GPUs{}, fmt.Errorf("%s: %w: %s", smi, err, strings.TrimSpace(string(out)))
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

// A cudaLibrary is one that a GPU build of TensorFlow opens when it looks for devices (MaybeTryDlopenGPULibraries of
// tsl/platform/dso_loader), and without which it uses none.
// It opens more, such as those of CUPTI and NCCL, which only profilers and several GPUs need.
type cudaLibrary struct{ folder, name string } // of its package, and with the version that TensorFlow opens

// cudaLibraries returns those that a version of TensorFlow opens. Every version that tfbert supports is built for
// CUDA 12; cuDNN changed. For an unknown version they are those of the newest.
func cudaLibraries(version string) []cudaLibrary {
	cudnn := "libcudnn.so.9"
	if version != "" && libtf.CompareVersions(version, "2.18") < 0 {
		cudnn = "libcudnn.so.8"
	}
	return []cudaLibrary{
		{"cuda_runtime", "libcudart.so.12"}, {"cublas", "libcublas.so.12"}, {"cublas", "libcublasLt.so.12"},
		{"cudnn", cudnn}, {"cufft", "libcufft.so.11"}, {"cusolver", "libcusolver.so.11"},
		{"cusparse", "libcusparse.so.12"},
	}
}

// missingCUDA returns the libraries that the GPU build at path lacks to use a GPU. A library of another version than
// the build's counts as missing: TensorFlow does not open it.
func missingCUDA(l libtf.Linker, path, version string) []string {
	var lacking []string
	packages := filepath.Join(filepath.Dir(filepath.Dir(path)), "nvidia")
	for _, lib := range cudaLibraries(version) {
		if _, ok := l.Find(lib.name, []string{filepath.Join(packages, lib.folder, "lib")}); !ok {
			lacking = append(lacking, lib.name)
		}
	}
	if _, ok := l.Find(libtf.DriverLibrary, nil); !ok {
		lacking = append(lacking, libtf.DriverLibrary)
	}
	return lacking
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
