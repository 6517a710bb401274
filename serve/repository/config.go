package repository

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
)

// A Config is the configuration of a servable as Triton's clients see it: what config.pbtxt says,
// completed by what the model itself has.
type Config struct {
	Platform        string
	MaxBatchSize    int          // 0: a batch has whatever size a request has
	Inputs, Outputs []TensorInfo // in the configuration's order, with the shapes of requests

	message *pb.ModelConfig
}

// Marshal returns the configuration as a serialized inference.ModelConfig.
func (c *Config) Marshal() ([]byte, error) { return proto.Marshal(c.message) }

// newConfig describes a configuration. A number for each row, a vector in the graph's own signature, is
// a column there.
func newConfig(c *pb.ModelConfig, s *Servable) *Config {
	shape := func(dims []int64) []int64 {
		if c.MaxBatchSize > 0 {
			return append([]int64{-1}, dims...)
		}
		return dims
	}
	info := func(name string, dims []int64, infos []TensorInfo) TensorInfo {
		at := slices.IndexFunc(infos, func(info TensorInfo) bool { return info.Name == name })
		t := infos[at]
		t.Shape = shape(dims)
		return t
	}
	config := &Config{Platform: c.Platform, MaxBatchSize: int(c.MaxBatchSize), message: c}
	for _, in := range c.Input {
		config.Inputs = append(config.Inputs, info(in.Name, in.Dims, s.inputs))
	}
	for _, out := range c.Output {
		config.Outputs = append(config.Outputs, info(out.Name, out.Dims, s.outputs))
	}
	return config
}

// mixedPrecision reports whether a configuration asks for TensorFlow's mixed-precision rewrite.
func mixedPrecision(c *pb.ModelConfig) bool {
	return slices.ContainsFunc(c.GetOptimization().GetExecutionAccelerators().GetGpuExecutionAccelerator(),
		func(a *pb.ModelOptimizationPolicy_ExecutionAccelerators_Accelerator) bool {
			return a.GetName() == "auto_mixed_precision"
		})
}

// offer makes the two servables of a model. Their configuration is that of config.pbtxt, nil if there is
// none; offer sets what it says of batching.
func (m *Model) offer(from *pb.ModelConfig, o *batch.Options) error {
	c, err := complete(from, m.name, m.backend, o)
	if err != nil {
		return err
	}
	m.tensors = &Servable{Model: m, name: m.name, inputs: m.backend.Inputs, outputs: m.backend.Outputs, run: m.runTensors}
	m.tensors.config = newConfig(c, m.tensors)
	m.text = &Servable{Model: m, name: m.name + textSuffix, inputs: textInputs, outputs: textOutputs, run: m.runText}
	m.text.config = newConfig(textConfig(m.text.name, c), m.text)
	return nil
}

// textConfig is the configuration of the text model beside a model.
func textConfig(name string, of *pb.ModelConfig) *pb.ModelConfig {
	c := &pb.ModelConfig{
		Name: name, Platform: "ensemble", MaxBatchSize: max(1, of.MaxBatchSize), VersionPolicy: of.VersionPolicy,
	}
	for _, info := range textInputs {
		c.Input = append(c.Input, &pb.ModelInput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, true)})
	}
	for _, info := range textOutputs {
		c.Output = append(c.Output, &pb.ModelOutput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, true)})
	}
	return c
}

// complete returns the configuration of a model as Triton completes it: what the file leaves out, or
// everything where there is none, is the model's own. It sets what the configuration says of batching.
func complete(from *pb.ModelConfig, name string, b *Backend, o *batch.Options) (*pb.ModelConfig, error) {
	c := &pb.ModelConfig{MaxBatchSize: int32(cmp.Or(o.MaxSize, batch.DefaultSize))}
	if from != nil {
		c = proto.Clone(from).(*pb.ModelConfig)
		o.MaxSize = int(c.MaxBatchSize)
	}
	c.Name, c.Platform, c.Backend = name, platform, "tensorflow"
	if c.VersionPolicy == nil {
		newest := &pb.ModelVersionPolicy_Latest_{Latest: &pb.ModelVersionPolicy_Latest{NumVersions: 1}}
		c.VersionPolicy = &pb.ModelVersionPolicy{PolicyChoice: newest}
	}
	if err := tensors(c, b); err != nil {
		return nil, err
	}
	batching(c, o)
	if b.CheckLength(b.SeqLength-1) != nil {
		o.Buckets = []int{} // every batch has the model's one length, whatever is in it
	}
	return c, nil
}

// batching follows what a configuration says of batches, and describes in it what it does not say.
func batching(c *pb.ModelConfig, o *batch.Options) {
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
		c.InstanceGroup = []*pb.ModelInstanceGroup{
			{Name: c.Name, Count: int32(max(1, o.Concurrency)), Kind: pb.ModelInstanceGroup_KIND_AUTO},
		}
	}
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
			c.Input = append(c.Input, &pb.ModelInput{
				Name: info.Name, DataType: configTypes[info.Type],
				Dims: dims(info, batched), Reshape: reshape(info, batched), Optional: info.Optional,
			})
		}
	}
	if len(c.Output) == 0 {
		for _, info := range b.Outputs {
			c.Output = append(c.Output, &pb.ModelOutput{
				Name: info.Name, DataType: configTypes[info.Type],
				Dims: dims(info, batched), Reshape: reshape(info, batched),
			})
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

var configTypes = map[string]pb.DataType{
	Int32: pb.DataType_TYPE_INT32, Float32: pb.DataType_TYPE_FP32, Bytes: pb.DataType_TYPE_STRING,
}

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
func match(
	what, name string, kind pb.DataType, dims []int64, reshape *pb.ModelTensorReshape, batched bool, infos []TensorInfo,
) error {
	at := slices.IndexFunc(infos, func(info TensorInfo) bool { return info.Name == name })
	if at < 0 {
		return badConfig("it has an %s %q that the model does not have", what, name)
	}
	info := infos[at]
	if kind != configTypes[info.Type] {
		return badConfig("it has %s %q as %v: the model has it as %v", what, name, kind, configTypes[info.Type])
	}
	shape := dims
	if reshape != nil {
		shape = reshape.Shape
	}
	if batched {
		shape = append([]int64{-1}, shape...)
	}
	if !slices.EqualFunc(shape, info.Shape, func(a, b int64) bool { return a < 0 || b < 0 || a == b }) {
		return badConfig("it has %s %q with the shape %v: the model has %v; "+
			"dims leave out the batch where max_batch_size is positive, and reshape says what the model gets", what, name, shape, info.Shape)
	}
	return nil
}
