package tfbert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/internal/probe"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// Precision asks for the type that a model computes in. A fused graph computes in the type of its
// weights. For any other graph, FP16 and BF16 are TensorFlow's mixed-precision rewrites.
type Precision string

const (
	DefaultPrecision Precision = ""     // that of a fused graph's weights, else fp32
	AutoPrecision    Precision = "auto" // that of a fused graph's weights, else the fastest on this machine
	FP32             Precision = "fp32"
	FP16             Precision = "fp16" // for GPUs
	BF16             Precision = "bf16" // for CPUs
	INT8             Precision = "int8" // for CPUs, of a fused graph alone
)

// ParsePrecision returns the precision of a name: "", "auto", "fp32", "fp16", "bf16" or "int8".
func ParsePrecision(name string) (Precision, error) {
	switch p := Precision(name); p {
	case DefaultPrecision, AutoPrecision, FP32, FP16, BF16, INT8:
		return p, nil
	}
	return "", fmt.Errorf("unknown precision %q: it is fp32, fp16, bf16, int8 or auto", name)
}

// Choice is the type that a model computes in.
type Choice struct {
	Precision savedmodel.Precision
	Because   string // what AutoPrecision decided by; "" if there was nothing to decide
}

// Choose decides what the model in dir computes in if it is opened with the precision p, or a model
// that is not a fused graph if dir is "". It returns a [*PrecisionMismatchError] if the weights of a
// fused graph are of another type. AutoPrecision chooses fp16 if this machine can run it (see
// [FP16Support]), else bf16 if it is clearly faster on this CPU than fp32. To find that out, Choose may
// load TensorFlow and run a few matrix products.
func (p Precision) Choose(dir string) (Choice, error) {
	if dir == "" {
		return p.choose()
	}
	s, err := ReadSettings(dir)
	if err != nil {
		return Choice{}, err
	}
	return p.chooseFor(dir, s)
}

func (p Precision) chooseFor(dir string, s Settings) (Choice, error) {
	if s.Graph != FusedGraph && p == INT8 {
		return Choice{}, &PrecisionMismatchError{Dir: dir, Weights: savedmodel.FP32, Asked: p}
	}
	if s.Graph != FusedGraph {
		return p.choose()
	}
	if p != DefaultPrecision && p != AutoPrecision && string(p) != s.Precision.String() {
		return Choice{}, &PrecisionMismatchError{Dir: dir, Weights: s.Precision, Asked: p}
	}
	return Choice{Precision: s.Precision}, nil
}

// choose decides for a model that is not a fused graph.
func (p Precision) choose() (Choice, error) {
	if p == DefaultPrecision {
		return Choice{Precision: savedmodel.FP32}, nil
	}
	if p != AutoPrecision {
		precision, err := savedmodel.ParsePrecision(string(p))
		return Choice{Precision: precision}, err
	}
	host := machine.Diagnose(context.Background())
	if gpu, err := fp16GPU(&host); err == nil {
		because := fmt.Sprintf("%s has compute capability %s", gpu.Name, gpu.ComputeCapability)
		return Choice{savedmodel.FP16, because}, nil
	}
	missing := func(unit string) bool { return !host.CPU.Has(unit) }
	units := slices.DeleteFunc([]string{"amx_bf16", "avx512_bf16"}, missing)
	if len(units) == 0 {
		return Choice{savedmodel.FP32, "this CPU has no units for bfloat16 (amx_bf16, avx512_bf16)"}, nil
	}
	if err := tf.Load(""); err != nil {
		return Choice{}, err
	}
	cost, err := probe.BFloat16Cost()
	if err != nil {
		return Choice{}, err
	}
	because := fmt.Sprintf("a matrix product in bfloat16 takes %.2f times as long as in float32 on this CPU (%s)",
		cost, strings.Join(units, ", "))
	if cost > worthwhile {
		return Choice{savedmodel.FP32, because}, nil
	}
	return Choice{savedmodel.BF16, because}, nil
}

// worthwhile is the cost of products in bfloat16 up to which it is chosen: above, the casts of a
// rewrite take what the products gain.
const worthwhile = 0.75

// FP16Support returns an error if fp16 cannot run on this machine. It needs a GPU of compute capability
// 7.0 or later, a TensorFlow library that is built for CUDA, and CUDA's own libraries.
func FP16Support() error {
	host := machine.Diagnose(context.Background())
	_, err := fp16GPU(&host)
	return err
}

// fp16GPU returns the GPU that fp16 would run on.
func fp16GPU(host *machine.Report) (machine.GPU, error) {
	const least = 7.0 // compute capability
	devices := host.GPUs.Devices
	if len(devices) == 0 {
		return machine.GPU{}, errors.New("fp16 is for GPUs, and this machine has none")
	}
	i := slices.IndexFunc(devices, func(gpu machine.GPU) bool {
		c, err := strconv.ParseFloat(gpu.ComputeCapability, 64)
		return err == nil && c >= least
	})
	switch lib := host.Library; {
	case i < 0 && devices[0].ComputeCapability == "":
		return machine.GPU{}, fmt.Errorf("fp16 needs a GPU of compute capability %.1f, and that of %s is unknown",
			least, devices[0].Name)
	case i < 0:
		return machine.GPU{}, fmt.Errorf("fp16 needs a GPU of compute capability %.1f, and %s has %s",
			least, devices[0].Name, devices[0].ComputeCapability)
	case lib == nil:
		return machine.GPU{}, errors.New("fp16 needs a TensorFlow library that is built for CUDA, and none is installed")
	case !lib.GPU:
		return machine.GPU{}, fmt.Errorf("fp16 needs a TensorFlow library that is built for CUDA, "+
			"and %s is built for the CPU", lib.Path)
	case len(lib.MissingForGPU) > 0:
		missing := strings.Join(lib.MissingForGPU, ", ")
		return machine.GPU{}, fmt.Errorf("fp16 needs CUDA's libraries, and %s is missing", missing)
	}
	return devices[i], nil
}
