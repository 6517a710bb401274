package repository

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
)

// MixedPrecision reports whether a configuration asks for TensorFlow's mixed-precision rewrite.
func MixedPrecision(c *pb.ModelConfig) bool {
	return slices.ContainsFunc(c.GetOptimization().GetExecutionAccelerators().GetGpuExecutionAccelerator(),
		func(a *pb.ModelOptimizationPolicy_ExecutionAccelerators_Accelerator) bool {
			return a.GetName() == "auto_mixed_precision"
		})
}

// complete gives the configuration of a model as Triton completes it: what the file leaves out, or
// all where there is none, is the model's own. It sets what the configuration says of batching.
func complete(from *pb.ModelConfig, name string, b *Backend, o *batch.Options) (*pb.ModelConfig, error) {
	c := &pb.ModelConfig{MaxBatchSize: int32(cmp.Or(o.MaxSize, batch.DefaultSize))}
	if from != nil {
		c = proto.Clone(from).(*pb.ModelConfig)
		o.MaxSize = int(c.MaxBatchSize)
	}
	c.Name, c.Platform, c.Backend = name, platform, "tensorflow"
	if c.VersionPolicy == nil {
		c.VersionPolicy = &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Latest_{Latest: &pb.ModelVersionPolicy_Latest{NumVersions: 1}}}
	}
	if err := tensors(c, b); err != nil {
		return nil, err
	}
	if d := c.GetDynamicBatching(); d != nil {
		o.PreferredSizes = nil
		for _, n := range d.PreferredBatchSize {
			o.PreferredSizes = append(o.PreferredSizes, int(n))
		}
		o.MaxDelay = microseconds(d.MaxQueueDelayMicroseconds)
		o.Priorities = int(min(d.PriorityLevels, 1<<20))
		o.DefaultPriority = int(min(d.DefaultPriorityLevel, 1<<20))
		if p := d.GetDefaultQueuePolicy(); p != nil {
			o.MaxWait = microseconds(p.DefaultTimeoutMicroseconds)
			o.MaxQueue = cmp.Or(int(p.MaxQueueSize), o.MaxQueue)
		}
	} else {
		c.SchedulingChoice = dynamicBatching(o)
	}
	if len(c.InstanceGroup) > 0 {
		o.Concurrency = 0
		for _, g := range c.InstanceGroup {
			o.Concurrency += max(1, int(g.Count))
		}
	} else {
		c.InstanceGroup = []*pb.ModelInstanceGroup{{Name: name, Count: int32(max(1, o.Concurrency)), Kind: pb.ModelInstanceGroup_KIND_AUTO}}
	}
	if b.CheckLength(b.SeqLength-1) != nil {
		o.Buckets = []int{} // every batch has the model's one length, whatever is in it
	}
	return c, nil
}

func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Microsecond))) * time.Microsecond
}

// dynamicBatching describes what the server does of itself.
func dynamicBatching(o *batch.Options) *pb.ModelConfig_DynamicBatching {
	d := &pb.ModelDynamicBatching{
		MaxQueueDelayMicroseconds: uint64(o.MaxDelay.Microseconds()),
		PriorityLevels:            uint64(o.Priorities), DefaultPriorityLevel: uint64(o.DefaultPriority),
	}
	for _, n := range o.PreferredSizes {
		d.PreferredBatchSize = append(d.PreferredBatchSize, int32(n))
	}
	return &pb.ModelConfig_DynamicBatching{DynamicBatching: d}
}

// tensors holds the inputs and outputs of a configuration against those of the model, or makes them.
func tensors(c *pb.ModelConfig, b *Backend) error {
	batched := c.MaxBatchSize > 0
	if len(c.Input) == 0 {
		for _, info := range b.Inputs {
			c.Input = append(c.Input, &pb.ModelInput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, batched), Reshape: reshape(info, batched), Optional: info.Optional})
		}
	}
	if len(c.Output) == 0 {
		for _, info := range b.Outputs {
			c.Output = append(c.Output, &pb.ModelOutput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, batched), Reshape: reshape(info, batched)})
		}
	}
	for _, in := range c.Input {
		if err := match("input", in.Name, in.DataType, in.Dims, in.Reshape, batched, b.Inputs); err != nil {
			return err
		}
	}
	for _, out := range c.Output {
		if err := match("output", out.Name, out.DataType, out.Dims, out.Reshape, batched, b.Outputs); err != nil {
			return err
		}
	}
	return nil
}

var configTypes = map[string]pb.DataType{Int32: pb.DataType_TYPE_INT32, Float32: pb.DataType_TYPE_FP32, Bytes: pb.DataType_TYPE_STRING}

// dims leaves out the batch's dimension, as a configuration does. A vector, one number for each row,
// is [1] there and reshaped, as in NVIDIA's own.
func dims(info TensorInfo, batched bool) []int64 {
	switch {
	case !batched:
		return info.Shape
	case len(info.Shape) == 1:
		return []int64{1}
	}
	return info.Shape[1:]
}

func reshape(info TensorInfo, batched bool) *pb.ModelTensorReshape {
	if batched && len(info.Shape) == 1 {
		return &pb.ModelTensorReshape{}
	}
	return nil
}

// match holds one tensor of a configuration against the model's.
func match(what, name string, kind pb.DataType, dims []int64, reshape *pb.ModelTensorReshape, batched bool, infos []TensorInfo) error {
	at := slices.IndexFunc(infos, func(info TensorInfo) bool { return info.Name == name })
	if at < 0 {
		return fmt.Errorf("the configuration has an %s %q that the model has not", what, name)
	}
	info := infos[at]
	if kind != configTypes[info.Type] {
		return fmt.Errorf("the configuration has %s %q as %v: the model has it as %v", what, name, kind, configTypes[info.Type])
	}
	shape := dims
	if reshape != nil {
		shape = reshape.Shape
	}
	if batched {
		shape = append([]int64{-1}, shape...)
	}
	if !slices.EqualFunc(shape, info.Shape, func(a, b int64) bool { return a < 0 || b < 0 || a == b }) {
		return fmt.Errorf("the configuration has %s %q with the shape %v: the model has %v; "+
			"dims leave out the batch where max_batch_size is positive, and reshape says what the model gets", what, name, shape, info.Shape)
	}
	return nil
}

// Shape is a tensor's shape in requests by the dims of a configuration.
func Shape(c *pb.ModelConfig, dims []int64) []int64 {
	if c.GetMaxBatchSize() > 0 {
		return append([]int64{-1}, dims...)
	}
	return dims
}

// Config is Triton's view of the model.
func (h Handle) Config() *pb.ModelConfig {
	if !h.Text {
		return h.config
	}
	c := &pb.ModelConfig{
		Name: h.Name(), Platform: "ensemble", MaxBatchSize: max(1, h.config.MaxBatchSize), VersionPolicy: h.config.VersionPolicy,
	}
	for _, info := range textInputs {
		c.Input = append(c.Input, &pb.ModelInput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, true)})
	}
	for _, info := range textOutputs {
		c.Output = append(c.Output, &pb.ModelOutput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, true)})
	}
	return c
}
