package machine

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// CPU is the processor and what it has that makes TensorFlow fast.
type CPU struct {
	Model    string    `json:"model,omitempty"`
	Count    int       `json:"count"` // CPUs that this process may use
	Features []Feature `json:"features,omitempty"`
}

// A Feature is an instruction set extension.
type Feature struct {
	Name    string `json:"name"` // as in /proc/cpuinfo
	Present bool   `json:"present"`
	Use     string `json:"use"`
}

// Has reports whether the processor has a feature.
func (c CPU) Has(name string) bool {
	return slices.ContainsFunc(c.Features, func(f Feature) bool { return f.Name == name && f.Present })
}

// featureUses are the features that matter, by architecture.
var featureUses = map[string][]Feature{
	"amd64": {
		{Name: "avx2", Use: "fast float32"},
		{Name: "fma", Use: "fast float32"},
		{Name: "avx512f", Use: "faster float32"},
		{Name: "avx512_bf16", Use: "fast bfloat16"},
		{Name: "avx512_fp16", Use: "fast float16"},
		{Name: "amx_tile", Use: "matrix units"},
		{Name: "amx_bf16", Use: "fastest bfloat16"},
		{Name: "amx_int8", Use: "fastest int8"},
	},
	"arm64": {
		{Name: "asimdhp", Use: "fast float16"},
		{Name: "sve", Use: "faster float32"},
		{Name: "bf16", Use: "fast bfloat16"},
		{Name: "i8mm", Use: "fast int8"},
	},
}

// ThisCPU returns the processor of this machine.
//
// It is read from the kernel's own list, which has the model's name too. Package golang.org/x/sys/cpu does not know
// all of the features above: avx512_fp16, and bf16 of arm64.
func ThisCPU() CPU {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return CPU{Count: runtime.NumCPU()}
	}
	defer f.Close()
	return parseCPUInfo(f, runtime.GOARCH)
}

// parseCPUInfo reads /proc/cpuinfo.
func parseCPUInfo(r io.Reader, goarch string) CPU {
	cpu := CPU{Count: runtime.NumCPU(), Features: slices.Clone(featureUses[goarch])}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			cpu.Model = value
		case "flags", "Features": // x86, ARM
			flags := strings.Fields(value)
			for i, f := range cpu.Features {
				cpu.Features[i].Present = slices.Contains(flags, f.Name)
			}
			return cpu // the other processors are the same
		}
	}
	return cpu
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
