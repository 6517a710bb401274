// Package machine finds out what this machine has to run TensorFlow with: its processor, its GPUs, its C
// library, and a TensorFlow library with everything that this needs. It loads no library.
package machine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/internal/cpu"
	"github.com/tfbert/go/internal/libtf"
)

// A Report is what this machine has to run TensorFlow with.
type Report struct {
	OS         string            `json:"os"`
	Arch       string            `json:"arch"`
	Glibc      string            `json:"glibc,omitempty"`
	CPU        cpu.Info          `json:"cpu"`
	Memory     int64             `json:"memory_bytes,omitempty"`
	GPUs       GPUs              `json:"gpus,omitzero"`
	Library    *Library          `json:"library,omitempty"` // the one that would be loaded; nil if there is none
	Candidates []libtf.Candidate `json:"candidates"`

	// Problems holds a line for each problem, with what to do about it.
	Problems []string `json:"problems,omitempty"`
}

// Library is a TensorFlow library that was found.
type Library struct {
	Path    string           `json:"path"`
	Source  string           `json:"source"`
	GPU     bool             `json:"gpu"`               // whether it is built for CUDA
	Version string           `json:"version,omitempty"` // known only if tfbert installed it
	Missing []MissingLibrary `json:"missing,omitempty"` // libraries without which it does not load

	// MissingForGPU holds the libraries without which a GPU build runs on the CPU.
	MissingForGPU []string `json:"missing_for_gpu,omitempty"`
}

// Diagnose looks at this machine. It loads no library.
func Diagnose(ctx context.Context) Report {
	r := Report{OS: runtime.GOOS, Arch: runtime.GOARCH, Candidates: libtf.Candidates()}
	problem := func(err error) {
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	problem(Supported(runtime.GOOS, runtime.GOARCH))
	if runtime.GOOS == "linux" {
		var err error
		r.Glibc, err = Glibc()
		problem(err)
		r.GPUs, err = FindGPUs(ctx)
		problem(err)
	}
	r.CPU = cpu.This()
	r.Memory = readMemory("/proc/meminfo")
	if r.Arch == "amd64" && r.CPU.Model != "" && !r.CPU.Has("avx2") {
		r.Problems = append(r.Problems, "the CPU does not have AVX2: TensorFlow will be slow, or end with SIGILL")
	}
	chosen, err := libtf.Choose(r.Candidates)
	if err != nil {
		problem(err)
		return r
	}
	r.Library, err = inspect(chosen)
	problem(err)
	r.Problems = append(r.Problems, r.libraryProblems()...)
	return r
}

// inspect returns what is known of a library without loading it.
func inspect(c libtf.Candidate) (*Library, error) {
	lib := &Library{Path: c.Path, Source: c.Source, GPU: isGPUBuild(c.Path)}
	if inst, err := libtf.Open(filepath.Dir(filepath.Dir(c.Path))); err == nil {
		lib.Version = inst.Version
	}
	l := libtf.SystemLinker()
	if lib.GPU {
		lib.MissingForGPU = missingCUDA(l, c.Path, lib.Version)
	}
	var err error
	lib.Missing, err = missing(l, c.Path)
	return lib, err
}

func (r *Report) libraryProblems() (problems []string) {
	for _, m := range r.Library.Missing {
		problems = append(problems, fmt.Sprintf("%s, which %s needs, is missing: "+
			"install the package of your system that has it", m.Name, m.NeededBy))
	}
	if len(r.GPUs.Devices) == 0 {
		return problems // a GPU build also runs on a CPU
	}
	if !r.Library.GPU {
		return append(problems, "there is a GPU, but the library is built for the CPU: run `tfbert lib install --gpu`")
	}
	for _, name := range r.Library.MissingForGPU {
		what := "run `tfbert lib install --gpu`"
		if name == libtf.DriverLibrary {
			what = "install NVIDIA's driver, or start the container with its GPUs"
		}
		problems = append(problems, fmt.Sprintf("%s is missing, so the GPU stays unused: %s", name, what))
	}
	return problems
}

// CheckGPU returns an error if TensorFlow must not look for the GPU of this machine: where CUDA's libraries are missing
// or of another version than those that it is built for, it may end the process.
func (r *Report) CheckGPU() error {
	if len(r.GPUs.Devices) == 0 || r.Library == nil || !r.Library.GPU {
		return nil
	}
	missing := slices.DeleteFunc(slices.Clone(r.Library.MissingForGPU), func(name string) bool {
		return name == libtf.DriverLibrary
	})
	if len(missing) == 0 || len(missing) < len(r.Library.MissingForGPU) { // without the driver it looks for none
		return nil
	}
	return fmt.Errorf("TensorFlow may end the process when it looks for the GPU without %s: "+
		"set CUDA_VISIBLE_DEVICES=-1 to run on the CPU", strings.Join(missing, ", "))
}

func readMemory(path string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return parseMemTotal(f)
}

// parseMemTotal reads the machine's memory in bytes from /proc/meminfo, 0 if it is not there.
func parseMemTotal(r io.Reader) int64 {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// Supported returns an error if there are no TensorFlow wheels for a system.
func Supported(goos, goarch string) error {
	if goos == "linux" && (goarch == "amd64" || goarch == "arm64") {
		return nil
	}
	return fmt.Errorf("not supported on %s/%s, only on Linux for amd64 and arm64: "+
		"get a TensorFlow C library for this system and set %s to it", goos, goarch, libtf.EnvLibrary)
}
