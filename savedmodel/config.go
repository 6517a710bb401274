package savedmodel

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

// Precision is the type that TensorFlow's mixed-precision graph rewrite turns matrix arithmetic
// into.
type Precision int

const (
	// FP32 leaves the graph as it is.
	FP32 Precision = iota
	// FP16 is the rewrite for GPUs of compute capability 7.0 and later (auto_mixed_precision).
	FP16
	// BF16 is the rewrite for CPUs by oneDNN (auto_mixed_precision_onednn_bfloat16).
	BF16
)

var precisionNames = [...]string{FP32: "fp32", FP16: "fp16", BF16: "bf16"}

// String returns the precision's name: "fp32", "fp16" or "bf16".
func (p Precision) String() string {
	if p < 0 || int(p) >= len(precisionNames) {
		return fmt.Sprintf("Precision(%d)", int(p))
	}
	return precisionNames[p]
}

// ParsePrecision returns the precision of a name, as String returns it.
func ParsePrecision(name string) (Precision, error) {
	i := slices.Index(precisionNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("unknown precision %q, only %s", name, list(precisionNames[:]))
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

// GPUOptions say how a session uses GPUs. TensorFlow applies those of a process's first session to
// all of them.
type GPUOptions struct {
	MemoryFraction float64 // of each GPU's memory, at most; 0 is all of it
	AllowGrowth    bool    // take memory as it is needed, not all at once
	VisibleDevices string  // as in "0,2"; "" is all
}

// Config is a session's configuration. The zero value is TensorFlow's own defaults, except
// that an operation which cannot run where it asks to runs elsewhere (see NoSoftPlacement).
type Config struct {
	MixedPrecision Precision
	XLA            bool // compile clusters of operations (global_jit_level ON_1)
	GPU            GPUOptions

	// NoGrappler runs the graph as it is written: TensorFlow's graph optimizers (Grappler), among
	// them the mixed-precision rewrites, are left out. They copy a graph with all its constants for
	// every pass, which a graph of large constants that needs none of them can be spared.
	NoGrappler bool

	// IntraOpThreads bounds the threads of one operation, InterOpThreads the operations at once; 0
	// is one for each processor.
	IntraOpThreads, InterOpThreads int

	// NoSoftPlacement makes an operation that cannot run on the device it names an error, instead
	// of running it elsewhere.
	NoSoftPlacement bool
	// LogPlacement writes the device of every operation to the log.
	LogPlacement bool

	// Extra is a serialized ConfigProto that is put after the above and merged as protobuf does:
	// its scalars win and its lists are appended.
	Extra []byte
}

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
	default:
		return fail("unknown precision: %d", int(c.MixedPrecision))
	}
	if c.NoGrappler {
		if c.MixedPrecision != FP32 {
			return fail("the mixed-precision rewrite to %v is one of the graph optimizers that NoGrappler leaves out", c.MixedPrecision)
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
