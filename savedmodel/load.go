package savedmodel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tfbert/go/tf"
)

// Options say how a SavedModel is loaded. nil stands for its serving graph and TensorFlow's defaults.
type Options struct {
	Tags     []string // nil: {"serve"}
	Config   Config
	AllowOps OpPolicy // checked before TensorFlow sees the model

	// Device is where operations run that do not name one, such as "/GPU:1" or "/CPU:1"; "" leaves it to TensorFlow.
	Device string
}

// Model is a loaded SavedModel: a session whose variables are restored, and its signatures.
type Model struct {
	session *tf.Session
	meta    MetaGraph

	dir    string
	tags   []string
	device string
	config []byte // of the session
}

// Load loads the meta graph with the given tags into a session. path leads to the SavedModel as Find says.
func Load(path string, opts *Options) (*Model, error) {
	if opts == nil {
		opts = &Options{}
	}
	tags := opts.Tags
	if tags == nil {
		tags = []string{ServeTag}
	}
	dir, _, err := Find(path)
	if err != nil {
		return nil, err
	}
	// The file is read here first: our errors name what it holds instead, and a policy is kept before
	// TensorFlow sees the model.
	needed := withoutAttrs
	if opts.AllowOps.Standard {
		needed = withoutTensors
	}
	model, err := readSavedModel(dir, needed)
	if err != nil {
		return nil, err
	}
	meta, err := describe(dir, model).MetaGraph(tags)
	if err != nil {
		return nil, err
	}
	if err := checkVariables(dir, meta); err != nil {
		return nil, err
	}
	if err := opts.AllowOps.check(dir, model, tags); err != nil {
		return nil, err
	}
	config, err := opts.Config.Bytes()
	if err != nil {
		return nil, err
	}
	if err := tf.Load(""); err != nil {
		return nil, err
	}
	session, err := loadSession(dir, tags, opts.Device, config)
	if err != nil {
		return nil, err
	}
	return &Model{session: session, meta: *meta, dir: dir, tags: tags, device: opts.Device, config: config}, nil
}

// checkVariables returns an error if the variables of a model were not copied with it. TensorFlow loads such
// a model and fails when it runs.
func checkVariables(dir string, meta *MetaGraph) error {
	index := VariablesPrefix + ".index"
	if _, err := os.Stat(filepath.Join(dir, index)); err != nil && meta.Ops["RestoreV2"] > 0 {
		return fmt.Errorf("%s is not complete: the graph has variables, but there is no %s", dir, index)
	}
	return nil
}

// Close waits for the runs under way and releases the session.
func (m *Model) Close() error { return m.session.Close() }

// Dir returns the folder of the model.
func (m *Model) Dir() string { return m.dir }

// Session returns the session of the model, for what a signature does not offer.
func (m *Model) Session() *tf.Session { return m.session }

// MetaGraph returns the description of the loaded graph.
func (m *Model) MetaGraph() MetaGraph { return m.meta }

// Func binds inputs and outputs of a signature, by key, in the order that runs use.
func (m *Model) Func(signature string, inputs, outputs []string) (*Func, error) {
	s, err := m.meta.Signature(signature)
	if err != nil {
		return nil, err
	}
	f := &Func{model: m}
	if f.inputs, f.feeds, err = m.bind(inputs, s.Input); err != nil {
		return nil, err
	}
	if f.outputs, f.fetches, err = m.bind(outputs, s.Output); err != nil {
		return nil, err
	}
	return f, nil
}

func (m *Model) bind(
	keys []string, find func(key string) (TensorInfo, error),
) (infos []TensorInfo, outputs []tf.Output, err error) {
	for _, key := range keys {
		info, err := find(key)
		if err != nil {
			return nil, nil, err
		}
		output, err := m.session.Graph().Output(info.Name)
		if err != nil {
			return nil, nil, fmt.Errorf("the tensor of %q: %w", key, err)
		}
		const refs = 100 // added to the type of a variable, for the variable itself
		if dtype := output.DataType(); dtype != info.DType && dtype != info.DType+refs {
			return nil, nil, fmt.Errorf("the signature has %v, but the graph's %s is %v", info, info.Name, dtype)
		}
		infos, outputs = append(infos, info), append(outputs, output)
	}
	return infos, outputs, nil
}

// Func is a signature with an order of inputs and outputs.
type Func struct {
	model           *Model
	inputs, outputs []TensorInfo
	feeds, fetches  []tf.Output
}

// NumInputs returns the number of tensors that Run takes.
func (f *Func) NumInputs() int { return len(f.feeds) }

// Run runs the function. The caller closes all tensors, those that it takes and those that it returns. When
// the context ends, Run returns at once, as [tf.Session.Run] does.
func (f *Func) Run(ctx context.Context, in ...*tf.Tensor) ([]*tf.Tensor, error) {
	out, _, err := f.RunWith(ctx, nil, in...)
	return out, err
}

// RunWith is Run with options, and returns the metadata that they ask for.
func (f *Func) RunWith(
	ctx context.Context, opts *tf.RunOptions, in ...*tf.Tensor,
) ([]*tf.Tensor, *tf.RunMetadata, error) {
	if len(in) != len(f.feeds) {
		return nil, nil, fmt.Errorf("run: the function takes %d inputs, got %d", len(f.feeds), len(in))
	}
	feeds := make([]tf.Feed, len(in))
	for i, t := range in {
		if t == nil {
			return nil, nil, fmt.Errorf("run: input %q is nil", f.inputs[i].Key)
		}
		if err := f.inputs[i].accepts(t); err != nil {
			return nil, nil, fmt.Errorf("run: %w", err)
		}
		feeds[i] = tf.Feed{Output: f.feeds[i], Tensor: t}
	}
	return f.model.session.Run(ctx, feeds, f.fetches, opts)
}

// accepts returns an error if an input does not take a tensor. TensorFlow's own error names operations.
func (t TensorInfo) accepts(v *tf.Tensor) error {
	if v.DataType() != t.DType {
		return fmt.Errorf("input %q takes %v, got %v", t.Key, t.DType, v.DataType())
	}
	if t.Shape != nil && !t.Shape.Compatible(v.Shape()) {
		return fmt.Errorf("input %q takes shape %v, got %v", t.Key, t.Shape, v.Shape())
	}
	return nil
}
