// Package cpu returns what the processor of this machine has that makes TensorFlow fast.
package cpu

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Info describes a processor.
type Info struct {
	Model    string    `json:"model,omitempty"`
	Count    int       `json:"count"` // CPUs that this process may use
	Features []Feature `json:"features,omitempty"`
}

// A Feature is an extension of the instruction set.
type Feature struct {
	Name    string `json:"name"` // as in /proc/cpuinfo
	Present bool   `json:"present"`
	Use     string `json:"use"`
}

// Has reports whether the processor has a feature.
func (c Info) Has(name string) bool {
	return slices.ContainsFunc(c.Features, func(f Feature) bool { return f.Name == name && f.Present })
}

// featureUses are the features that matter, by architecture.
var featureUses = map[string][]Feature{
	"amd64": {
		{Name: "avx2", Use: "fast float32"},
		{Name: "fma", Use: "fast float32"},
		{Name: "avx512f", Use: "faster float32"},
		{Name: "avx_vnni", Use: "fast int8"},
		{Name: "avx512_vnni", Use: "fast int8"},
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

// This returns the processor of this machine.
//
// It reads the kernel's own list, which also has the model's name. Package golang.org/x/sys/cpu does not
// know all of the features above: it lacks avx512_fp16, and bf16 of arm64.
func This() Info {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return Info{Count: runtime.NumCPU()}
	}
	defer f.Close()
	return parse(f, runtime.GOARCH)
}

// parse reads /proc/cpuinfo.
func parse(r io.Reader, goarch string) Info {
	cpu := Info{Count: runtime.NumCPU(), Features: slices.Clone(featureUses[goarch])}
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
