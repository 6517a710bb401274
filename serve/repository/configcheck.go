package repository

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/tfbert/go/internal/serveproto"
)

// followed are the fields of a config.pbtxt that the server follows, with all that is in them.
var followed = []string{
	"name", "platform", "backend", "default_model_filename", "version_policy", "max_batch_size",
	"input.name", "input.data_type", "input.dims", "input.reshape",
	"output.name", "output.data_type", "output.dims", "output.reshape",
	"dynamic_batching.preferred_batch_size", "dynamic_batching.max_queue_delay_microseconds",
	"dynamic_batching.priority_levels", "dynamic_batching.default_priority_level",
	"dynamic_batching.default_queue_policy.default_timeout_microseconds",
	"dynamic_batching.default_queue_policy.max_queue_size",
	"instance_group.name", "instance_group.count", "instance_group.kind", "instance_group.gpus",
	"response_cache", "model_warmup",
}

const gpuAccelerator = "optimization.execution_accelerators.gpu_execution_accelerator"

// ignoredFields returns the fields of a configuration that the server does not follow, in order.
func ignoredFields(c *pb.ModelConfig) []string {
	var fields []string
	collectIgnored(c.ProtoReflect(), "", &fields)
	for _, a := range c.GetOptimization().GetExecutionAccelerators().GetGpuExecutionAccelerator() {
		if a.GetName() != mixedPrecisionName {
			fields = append(fields, fmt.Sprintf("%s %q", gpuAccelerator, a.GetName()))
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

func collectIgnored(m protoreflect.Message, prefix string, fields *[]string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := prefix + string(f.Name())
		inner := slices.ContainsFunc(followed, func(other string) bool { return strings.HasPrefix(other, path+".") }) ||
			strings.HasPrefix(gpuAccelerator, path+".")
		switch {
		case path == gpuAccelerator || slices.Contains(followed, path):
		case inner && f.IsList():
			for i := range v.List().Len() {
				collectIgnored(v.List().Get(i).Message(), path+".", fields)
			}
		case inner:
			collectIgnored(v.Message(), path+".", fields)
		default:
			*fields = append(*fields, path)
		}
		return true
	})
}

// checkValues returns an error for a value that no model can have.
func checkValues(c *pb.ModelConfig) error {
	if c.GetMaxBatchSize() < 0 {
		return fmt.Errorf("max_batch_size is %d: it must not be negative", c.GetMaxBatchSize())
	}
	if _, err := placementOf(c); err != nil {
		return err
	}
	if name := duplicate(c.GetInput()); name != "" {
		return fmt.Errorf("it has the input %q twice", name)
	}
	if name := duplicate(c.GetOutput()); name != "" {
		return fmt.Errorf("it has the output %q twice", name)
	}
	d := c.GetDynamicBatching()
	for _, n := range d.GetPreferredBatchSize() {
		if n < 1 || n > c.GetMaxBatchSize() && c.GetMaxBatchSize() > 0 {
			return fmt.Errorf("preferred_batch_size has %d: it must be from 1 to max_batch_size", n)
		}
	}
	if d.GetDefaultPriorityLevel() > d.GetPriorityLevels() {
		return fmt.Errorf("default_priority_level is %d: it must be from 1 to priority_levels, which is %d",
			d.GetDefaultPriorityLevel(), d.GetPriorityLevels())
	}
	for _, v := range c.GetVersionPolicy().GetSpecific().GetVersions() {
		if v < 1 {
			return fmt.Errorf("version_policy has the version %d: versions are positive", v)
		}
	}
	return nil
}

// duplicate returns the name that two tensors have, or "".
func duplicate[T configTensor](tensors []T) string {
	seen := map[string]bool{}
	for _, t := range tensors {
		if seen[t.GetName()] {
			return t.GetName()
		}
		seen[t.GetName()] = true
	}
	return ""
}
