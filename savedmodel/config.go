package savedmodel

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

// Precision is the type into which TensorFlow's mixed-precision rewrite turns matrix arithmetic.
type Precision int

const (
	// FP32 leaves the graph as it is.
	FP32 Precision = iota
	// FP16 is the rewrite for GPUs of compute capability 7.0 and later (auto_mixed_precision).
	FP16
	// BF16 is the rewrite for CPUs by oneDNN (auto_mixed_precision_onednn_bfloat16).
	BF16
	// INT8 is not a rewrite: a graph is written in it.
	INT8
)

var precisionNames = [...]string{FP32: "fp32", FP16: "fp16", BF16: "bf16", INT8: "int8"}

// String returns the name that ParsePrecision reads.
func (p Precision) String() string {
	if p < 0 || int(p) >= len(precisionNames) {
		return fmt.Sprintf("Precision(%d)", int(p))
	}
	return precisionNames[p]
}

// ParsePrecision returns the precision of a name: "fp32", "fp16", "bf16" or "int8".
func ParsePrecision(name string) (Precision, error) {
	i := slices.Index(precisionNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("unknown precision %q: want one of %s", name, list(precisionNames[:]))
	}
	return Precision(i), nil
}

// MarshalText implements encoding.TextMarshaler.
func (p Precision) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Precision) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrecision(string(text))
	return err
}

// GPUOptions say how a session uses GPUs. TensorFlow applies the options of a process's first session to all
// its sessions.
type GPUOptions struct {
	MemoryFraction float64 // of each GPU's memory, at most; 0 is all
	AllowGrowth    bool    // take memory when it is needed, not all at once
	VisibleDevices string  // such as "0,2"; "" is all
}

// Config is the configuration of a session. The zero value stands for TensorFlow's defaults, except that an
// operation runs on another device if it cannot run on the one that it names.
type Config struct {
	MixedPrecision Precision
	XLA            bool // compile clusters of operations (global_jit_level ON_1)
	GPU            GPUOptions

	// NoGrappler leaves out TensorFlow's graph optimizers (Grappler), also the mixed-precision rewrites.
	// They copy the graph with all its constants for every pass.
	NoGrappler bool

	// CPUDevices is the number of devices that the CPU stands for, all of which share its threads; 0 is one. It is to try
	// on any machine what is placed on several devices.
	CPUDevices int

	IntraOpThreads int // threads of one operation; 0 is one for each processor
	InterOpThreads int // operations at once; 0 is one for each processor

	NoSoftPlacement bool // an operation must run on the device that it names
	LogPlacement    bool // write the device of every operation to the log

	// Extra is a serialized ConfigProto that is merged into the above: its scalars win, and its lists
	// are appended.
	Extra []byte
}

// maxCPUDevices is more than any test needs.
const maxCPUDevices = 1024

// Bytes serializes the configuration as a ConfigProto.
func (c *Config) Bytes() ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("config: "+format, args...)
	}
	if c == nil {
		c = &Config{}
	}
	for _, n := range []int{c.IntraOpThreads, c.InterOpThreads} {
		if n < 0 || n > math.MaxInt32 {
			return fail("%d is not a number of threads", n)
		}
	}
	if c.CPUDevices < 0 || c.CPUDevices > maxCPUDevices {
		return fail("%d is not a number of CPU devices", c.CPUDevices)
	}
	if f := c.GPU.MemoryFraction; !(f >= 0 && f <= 1) { // NaN is neither
		return fail("GPU memory fraction %v is not between 0 and 1", f)
	}
	if err := proto.Unmarshal(c.Extra, &tfproto.ConfigProto{}); err != nil {
		return fail("Extra is not a serialized ConfigProto: %w", err)
	}
	p := &tfproto.ConfigProto{
		IntraOpParallelismThreads: int32(c.IntraOpThreads),
		InterOpParallelismThreads: int32(c.InterOpThreads),
		AllowSoftPlacement:        !c.NoSoftPlacement,
		LogDevicePlacement:        c.LogPlacement,
	}
	if c.CPUDevices > 0 {
		p.DeviceCount = map[string]int32{"CPU": int32(c.CPUDevices)}
	}
	if c.GPU != (GPUOptions{}) {
		p.GpuOptions = &tfproto.GPUOptions{
			PerProcessGpuMemoryFraction: c.GPU.MemoryFraction,
			AllowGrowth:                 c.GPU.AllowGrowth,
			VisibleDeviceList:           c.GPU.VisibleDevices,
		}
	}
	graph := &tfproto.GraphOptions{}
	if c.XLA {
		graph.OptimizerOptions = &tfproto.OptimizerOptions{GlobalJitLevel: tfproto.OptimizerOptions_ON_1}
	}
	switch c.MixedPrecision {
	case FP32:
	case FP16:
		graph.RewriteOptions = &tfproto.RewriterConfig{AutoMixedPrecision: tfproto.RewriterConfig_ON}
	case BF16:
		graph.RewriteOptions = &tfproto.RewriterConfig{AutoMixedPrecisionOnednnBfloat16: tfproto.RewriterConfig_ON}
	case INT8:
		return fail("no rewrite turns a graph into int8")
	default:
		return fail("unknown precision: %d", int(c.MixedPrecision))
	}
	if c.NoGrappler {
		if c.MixedPrecision != FP32 {
			return fail("the mixed-precision rewrite to %v is one of the graph optimizers that NoGrappler leaves out",
				c.MixedPrecision)
		}
		graph.RewriteOptions = &tfproto.RewriterConfig{DisableMetaOptimizer: true}
	}
	if proto.Size(graph) > 0 {
		p.GraphOptions = graph
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return fail("%w", err)
	}
	return append(b, c.Extra...), nil // messages one after another are one message, merged
}
