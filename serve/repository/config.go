package repository

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/file"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
)

// A Config is the configuration of a Servable as Triton's clients see it: its config.pbtxt, completed
// from the model itself.
type Config struct {
	Platform        string
	MaxBatchSize    int          // rows; 0 if it is not limited
	Inputs, Outputs []TensorInfo // in the configuration's order, with the shapes of requests

	message *pb.ModelConfig
}

// Marshal returns the configuration as a serialized inference.ModelConfig.
func (c *Config) Marshal() ([]byte, error) { return proto.Marshal(c.message) }

const (
	configFile = "config.pbtxt"
	maxConfig  = 1 << 20 // bytes; more than a config.pbtxt has

	platform    = "tensorflow_savedmodel" // Triton's name for a model of this kind
	backendName = "tensorflow"            // Triton's backend for it
	textBackend = "tfbert"                // of a text model; an "ensemble" would have steps that clients look at
)

// badConfig returns an error of a model's configuration, which its clients may read.
func badConfig(format string, args ...any) *Error {
	return Errorf(codes.FailedPrecondition, configFile+": "+format, args...)
}

// readConfig reads the config.pbtxt in the folder of a model; nil if there is none.
func readConfig(dir, name string) (*pb.ModelConfig, error) {
	text, err := file.Read(filepath.Join(dir, configFile), maxConfig)
	var large *file.SizeError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.As(err, &large):
		return nil, badConfig("%d bytes is too large for a model configuration", large.Size)
	case err != nil:
		return nil, err
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, badConfig("%v", err)
	}
	if c.Name != "" && c.Name != name {
		return nil, badConfig("the name is %q, but the folder's is %q: make them the same", c.Name, name)
	}
	return c, nil
}

// parseConfig parses a config.pbtxt. Its errors are of one line.
func parseConfig(text []byte) (*pb.ModelConfig, error) {
	c := &pb.ModelConfig{}
	if err := prototext.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("not a model configuration: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	return c, checkConfig(c)
}

// checkConfig returns an error unless a configuration is one that a model can have.
func checkConfig(c *pb.ModelConfig) error {
	if p, b := c.GetPlatform(), c.GetBackend(); p != "" && p != platform || p == "" && b != "" && b != backendName {
		return fmt.Errorf("the platform is %q and the backend %q: this server runs only %q", p, b, platform)
	}
	if n := c.GetDefaultModelFilename(); n != "" && !plainName(n) {
		return fmt.Errorf("default_model_filename is %q: it must be a name within the version's folder", n)
	}
	return checkValues(c)
}

// newConfig returns the Config of a complete configuration. A number for each row is a vector in the
// graph's own signature and a column here.
func newConfig(c *pb.ModelConfig, s *Servable) *Config {
	shape := func(dims []int64) []int64 {
		if c.MaxBatchSize > 0 {
			return append([]int64{-1}, dims...)
		}
		return dims
	}
	configured := func(name string, dims []int64, infos []TensorInfo) TensorInfo {
		t := infos[indexOf(infos, name)]
		t.Shape = shape(dims)
		return t
	}
	config := &Config{Platform: cmp.Or(c.Platform, c.Backend), MaxBatchSize: int(c.MaxBatchSize), message: c}
	for _, in := range c.Input {
		config.Inputs = append(config.Inputs, configured(in.Name, in.Dims, s.inputs))
	}
	for _, out := range c.Output {
		config.Outputs = append(config.Outputs, configured(out.Name, out.Dims, s.outputs))
	}
	return config
}

// mixedPrecision reports whether a configuration asks for TensorFlow's mixed-precision rewrite.
func mixedPrecision(c *pb.ModelConfig) bool {
	return slices.ContainsFunc(c.GetOptimization().GetExecutionAccelerators().GetGpuExecutionAccelerator(),
		func(a *pb.ModelOptimizationPolicy_ExecutionAccelerators_Accelerator) bool {
			return a.GetName() == mixedPrecisionName
		})
}

const mixedPrecisionName = "auto_mixed_precision"

// textConfig returns the configuration of the text model beside a model.
func textConfig(name string, of *pb.ModelConfig) *pb.ModelConfig {
	c := &pb.ModelConfig{
		Name: name, Backend: textBackend, MaxBatchSize: max(1, of.MaxBatchSize), VersionPolicy: of.VersionPolicy,
		ResponseCache: of.ResponseCache,
	}
	for _, info := range textInputs {
		c.Input = append(c.Input, configInput(info, true))
	}
	for _, info := range textOutputs {
		c.Output = append(c.Output, configOutput(info, true))
	}
	return c
}

// completeConfig returns a model's configuration, completed as Triton does: the model supplies what the file
// leaves out, and everything if there is no file, which is nil. It also sets the options for batching that
// the file has.
func completeConfig(from *pb.ModelConfig, name string, b *Backend, o *batch.Options) (*pb.ModelConfig, error) {
	c := &pb.ModelConfig{MaxBatchSize: int32(cmp.Or(o.MaxSize, batch.DefaultSize))}
	if from != nil {
		c = proto.Clone(from).(*pb.ModelConfig)
		o.MaxSize = int(c.MaxBatchSize)
	}
	c.Name, c.Platform, c.Backend = name, platform, backendName
	if c.VersionPolicy == nil {
		newest := &pb.ModelVersionPolicy_Latest_{Latest: &pb.ModelVersionPolicy_Latest{NumVersions: 1}}
		c.VersionPolicy = &pb.ModelVersionPolicy{PolicyChoice: newest}
	}
	if err := completeTensors(c, b); err != nil {
		return nil, err
	}
	completeBatching(c, o)
	if b.CheckLength(b.SeqLength-1) != nil {
		o.Buckets = []int{} // every batch has the model's one length, whatever is in it
	}
	return c, nil
}

// completeBatching sets the options that a configuration has, and puts the others into the configuration.
func completeBatching(c *pb.ModelConfig, o *batch.Options) {
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
		p, _ := placementOf(c) // which parseConfig has checked
		o.Concurrency = p.atOnce
	} else {
		c.InstanceGroup = []*pb.ModelInstanceGroup{
			{Name: c.Name, Count: int32(max(1, o.Concurrency)), Kind: pb.ModelInstanceGroup_KIND_AUTO},
		}
	}
}

func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Microsecond))) * time.Microsecond
}

// dynamicBatching returns the options as a configuration has them.
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

// completeTensors checks the inputs and outputs of a configuration against those of the model, or adds them
// where the configuration has none.
func completeTensors(c *pb.ModelConfig, b *Backend) error {
	batched := c.MaxBatchSize > 0
	if len(c.Input) == 0 {
		for _, info := range b.Inputs {
			in := configInput(info, batched)
			in.Reshape, in.Optional = reshape(info, batched), info.Optional
			c.Input = append(c.Input, in)
		}
	}
	if len(c.Output) == 0 {
		for _, info := range b.Outputs {
			out := configOutput(info, batched)
			out.Reshape = reshape(info, batched)
			c.Output = append(c.Output, out)
		}
	}
	for _, in := range c.Input {
		if err := checkTensor("input", in, batched, b.Inputs); err != nil {
			return err
		}
	}
	for _, out := range c.Output {
		if err := checkTensor("output", out, batched, b.Outputs); err != nil {
			return err
		}
	}
	return nil
}

var configTypes = map[string]pb.DataType{
	Int32: pb.DataType_TYPE_INT32, Int64: pb.DataType_TYPE_INT64, Float32: pb.DataType_TYPE_FP32, Bytes: pb.DataType_TYPE_STRING,
}

func configInput(info TensorInfo, batched bool) *pb.ModelInput {
	return &pb.ModelInput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, batched)}
}

func configOutput(info TensorInfo, batched bool) *pb.ModelOutput {
	return &pb.ModelOutput{Name: info.Name, DataType: configTypes[info.Type], Dims: dims(info, batched)}
}

// dims returns a shape without the batch's dimension, as a configuration has it. A vector, one number for
// each row, is [1] there and reshaped, as in NVIDIA's own.
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

// A configTensor is an input or output of a configuration.
type configTensor interface {
	GetName() string
	GetDataType() pb.DataType
	GetDims() []int64
	GetReshape() *pb.ModelTensorReshape
}

// checkTensor returns an error unless a tensor of a configuration is one of the model's. The kind is input
// or output.
func checkTensor(kind string, t configTensor, batched bool, infos []TensorInfo) error {
	at := indexOf(infos, t.GetName())
	if at < 0 {
		return badConfig("it has an %s %q that the model does not have", kind, t.GetName())
	}
	info := infos[at]
	if want := configTypes[info.Type]; t.GetDataType() != want {
		return badConfig("it has %s %q as %v: the model has it as %v", kind, t.GetName(), t.GetDataType(), want)
	}
	shape := t.GetDims()
	if t.GetReshape() != nil {
		shape = t.GetReshape().GetShape()
	}
	if batched {
		shape = append([]int64{-1}, shape...)
	}
	if !slices.EqualFunc(shape, info.Shape, func(a, b int64) bool { return a < 0 || b < 0 || a == b }) {
		return badConfig("it has %s %q with the shape %v: the model has %v; dims leave out the batch where "+
			"max_batch_size is positive, and reshape is the shape that the model gets",
			kind, t.GetName(), shape, info.Shape)
	}
	return nil
}
