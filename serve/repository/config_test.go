package repository

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// fixedBackend returns a model that only takes sequences of 384 tokens.
func fixedBackend() *Backend {
	matrix := func(name, kind string) TensorInfo {
		return TensorInfo{Name: name, Type: kind, Shape: []int64{-1, 384}}
	}
	vector := TensorInfo{Name: uniqueIDs, Type: Int32, Shape: []int64{-1}}
	return &Backend{
		SeqLength: 384,
		CheckLength: func(n int) error {
			if n != 384 {
				return assert.AnError
			}
			return nil
		},
		Inputs:  []TensorInfo{matrix(inputIDs, Int32), matrix(inputMask, Int32), matrix(segmentIDs, Int32), vector},
		Outputs: []TensorInfo{matrix(startLogits, Float32), matrix(endLogits, Float32), vector},
	}
}

// emptyPredictor returns no results.
type emptyPredictor struct{}

func (emptyPredictor) Predict(context.Context, []squad.Feature) ([]squad.RawResult, error) {
	return nil, nil
}

func TestNVIDIAConfiguration(t *testing.T) {
	c, err := parseConfig([]byte(testenv.NVIDIAConfig))
	require.NoError(t, err)
	assert.True(t, mixedPrecision(c))
	assert.Equal(t, []int64{384}, c.GetInput()[1].GetDims())
	assert.NotNil(t, c.GetInput()[0].GetReshape())

	options := batch.Options{MaxSize: 3, Concurrency: 7, MaxQueue: 99}
	full, err := completeConfig(c, "bert", fixedBackend(), &options)
	require.NoError(t, err)
	assert.Equal(t, batch.Options{
		MaxSize: 4, PreferredSizes: []int{2, 4}, MaxDelay: time.Millisecond, Concurrency: 2, MaxQueue: 99, Buckets: []int{},
	}, options)
	assert.Equal(t, "tensorflow", full.GetBackend())
	assert.EqualValues(t, 1, full.GetVersionPolicy().GetLatest().GetNumVersions())
	assert.Empty(t, c.GetBackend(), "the file's own stays as it is")
}

func TestConfigurationIsCompleted(t *testing.T) {
	options := batch.Options{MaxSize: 3, PreferredSizes: []int{2}, MaxDelay: 1e6, Priorities: 2, DefaultPriority: 1}
	c, err := completeConfig(nil, "bert", fixedBackend(), &options)
	require.NoError(t, err)
	assert.EqualValues(t, 3, c.GetMaxBatchSize())
	assert.Len(t, c.GetInput(), 4)
	assert.Len(t, c.GetOutput(), 3)
	assert.Equal(t, []int64{1}, c.GetInput()[3].GetDims())
	assert.NotNil(t, c.GetInput()[3].GetReshape())
	assert.Equal(t, []int32{2}, c.GetDynamicBatching().GetPreferredBatchSize())
	assert.EqualValues(t, 1000, c.GetDynamicBatching().GetMaxQueueDelayMicroseconds())
	assert.EqualValues(t, 1, c.GetInstanceGroup()[0].GetCount())

	m := &Model{name: "bert", backend: fixedBackend()}
	require.NoError(t, m.addServables(&pb.ModelConfig{}, &batch.Options{}))
	assert.Equal(t, []int64{-1, 384}, m.tensors.Config().Inputs[0].Shape, "max_batch_size 0: the dims have the batch")
}

func TestQueuePolicy(t *testing.T) {
	c, err := parseConfig([]byte(`dynamic_batching { priority_levels: 3 default_priority_level: 2
		default_queue_policy { default_timeout_microseconds: 5000 max_queue_size: 12 } }`))
	require.NoError(t, err)
	options := batch.Options{MaxQueue: 99}
	_, err = completeConfig(c, "bert", fixedBackend(), &options)
	require.NoError(t, err)
	assert.Equal(t, batch.Options{
		Priorities: 3, DefaultPriority: 2, MaxWait: 5 * time.Millisecond, MaxQueue: 12, Buckets: []int{},
	}, options)
}

// Fields that are not followed are named, wherever they stand.
func TestIgnoredFields(t *testing.T) {
	c, err := parseConfig([]byte(`name: "bert" max_batch_size: 8
		input { name: "input_ids" data_type: TYPE_INT32 dims: 384 allow_ragged_batch: true }
		instance_group { count: 2 kind: KIND_GPU gpus: [0, 1] }
		dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY max_queue_size: 3 } }
		optimization { cuda { graphs: true } execution_accelerators {
			gpu_execution_accelerator { name: "auto_mixed_precision" } gpu_execution_accelerator { name: "tensorrt" } } }
		model_warmup { name: "x" batch_size: 1 } parameters { key: "k" value { string_value: "v" } }`))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"dynamic_batching.default_queue_policy.timeout_action", "dynamic_batching.preserve_ordering",
		"input.allow_ragged_batch", "optimization.cuda",
		`optimization.execution_accelerators.gpu_execution_accelerator "tensorrt"`, "parameters",
	}, ignoredFields(c))
	assert.Empty(t, ignoredFields(nil))
}

func TestBadConfigurations(t *testing.T) {
	for _, tt := range []struct{ config, want string }{
		{`platform: "onnxruntime_onnx"`, `the platform is "onnxruntime_onnx"`},
		{`backend: "pytorch"`, `backend "pytorch"`},
		{`default_model_filename: "../../etc"`, `default_model_filename is "../../etc"`},
		{`default_model_filename: "/etc"`, `must be a name within`},
		{`default_model_filename: ".."`, `must be a name within`},
		{`max_batch_size: -1`, `max_batch_size is -1`},
		{`instance_group { count: -5 }`, `instance_group has the count -5: it must be from 1 to 1024`},
		{`instance_group { count: 65 kind: KIND_CPU }`, `more than 64 instances`},
		{`instance_group { kind: KIND_GPU gpus: [1, 1] }`, `the GPU 1: each must be named once`},
		{`instance_group { kind: KIND_GPU gpus: -1 }`, `the GPU -1`},
		{`input { name: "a" } input { name: "b" } input { name: "a" }`, `it has the input "a" twice`},
		{`output { name: "a" } output { name: "a" }`, `it has the output "a" twice`},
		{`max_batch_size: 4 dynamic_batching { preferred_batch_size: [2, 8] }`, `preferred_batch_size has 8`},
		{`dynamic_batching { preferred_batch_size: 0 }`, `preferred_batch_size has 0`},
		{`dynamic_batching { priority_levels: 2 default_priority_level: 3 }`, `default_priority_level is 3`},
		{`version_policy { specific { versions: [1, -2] } }`, `the version -2`},
		{`max_batch_sise: 1`, `max_batch_sise`},
		{`max_batch_size: "eight"`, `not a model configuration`},
		{`input [ { name: "x" `, `not a model configuration`},
		{`max_batch_size: 99999999999`, `not a model configuration`},
		{"name: \"\xff\"", `not a model configuration`},
		{
			`input { name: "other" data_type: TYPE_INT32 dims: 384 }`,
			`an input "other" that the model does not have`,
		}, {
			`output { name: "other" data_type: TYPE_FP32 dims: 384 }`,
			`an output "other" that the model does not have`,
		}, {
			`max_batch_size: 8 input { name: "input_ids" data_type: TYPE_INT32 dims: 128 }`,
			`the shape [-1 128]: the model has [-1 384]`,
		}, {
			`max_batch_size: 8 input { name: "input_ids" data_type: TYPE_INT32 dims: [1, 384]}`,
			`the shape [-1 1 384]`,
		}, {
			`max_batch_size: 8 input { name: "unique_ids" data_type: TYPE_INT32 dims: 1 }`,
			`reshape is the shape that the model gets`,
		}, {
			`max_batch_size: 8 output { name: "end_logits" data_type: TYPE_INT32 dims: 384 }`,
			`as TYPE_INT32: the model has it as TYPE_FP32`,
		}, {
			`input { name: "input_ids" data_type: TYPE_INT32 dims: 384 }`,
			`dims leave out the batch where max_batch_size is positive`,
		},
	} {
		c, err := parseConfig([]byte(tt.config))
		if err == nil {
			_, err = completeConfig(c, "bert", fixedBackend(), &batch.Options{})
		}
		if assert.ErrorContains(t, err, tt.want, tt.config) {
			assert.NotContains(t, err.Error(), "\n")
		}
	}
}

func TestVersionPolicies(t *testing.T) {
	for policy, want := range map[string][]int64{
		``:                               {9},
		`latest {}`:                      {9},
		`latest { num_versions: 2 }`:     {3, 9},
		`latest { num_versions: 7 }`:     {1, 3, 9},
		`all {}`:                         {1, 3, 9},
		`specific { versions: [1, 3] }`:  {1, 3},
		`specific { versions: [ 3, 5 ]}`: {3},
		`specific { versions: 5 }`:       {},
	} {
		c, err := parseConfig([]byte("version_policy: {" + policy + "}"))
		require.NoError(t, err)
		assert.Equal(t, want, chooseVersions(c, []int64{1, 3, 9}), policy)
	}
	assert.Empty(t, chooseVersions(nil, nil))
}

func TestPlainNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/etc", `a\b`, "a\x00b", "../a", "a/..", ".hidden", "..a", "a/"} {
		assert.False(t, plainName(name), "%q", name)
		assert.False(t, tree(t.TempDir()).has(name), "%q", name)
	}
	for _, name := range []string{"a", "bert_qa", "a..b", "ü", "a b"} {
		assert.True(t, plainName(name), "%q", name)
	}
	_, err := OpenModel("../x", 1, ".", Options{})
	require.ErrorContains(t, err, "not a valid name for a model")
}

func TestElements(t *testing.T) {
	for want, shapes := range map[int][][]int64{
		-1: {
			{-1}, {2, -3}, {1 << 40}, {1 << 20, 1 << 20}, {1 << 31, 1 << 31, 1 << 31, 1 << 31}, {-1 << 63},
			{1<<63 - 1, 1<<63 - 1}, {1 << 32, 0},
		},
		0: {{0}, {0, 5}, {5, 0}},
		1: {{}, {1}, {1, 1}},
		6: {{2, 3}},
	} {
		for _, shape := range shapes {
			assert.Equal(t, want, elements(shape), "%v", shape)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(testenv.NVIDIAConfig)
	for _, seed := range []string{
		"", "[\n", "name: 1", `version_policy { all {} }`, `input [ ] instance_group [{count: -5}]`,
		`dynamic_batching { priority_levels: 18446744073709551615 }`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c *pb.ModelConfig
		var err error
		bounded.Run(t, 400*len(text), 10*time.Second, func() { c, err = parseConfig([]byte(text)) })
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
			return
		}
		if n := c.GetDefaultModelFilename(); n != "" {
			assert.Equal(t, filepath.Join("a", n), filepath.Clean("a/"+n))
			assert.False(t, strings.Contains(n, "/"))
		}
		chooseVersions(c, []int64{1, 2, 3})
		bounded.Run(t, 400*len(text), 10*time.Second, func() {
			options := batch.Options{}
			m := &Model{name: "bert", backend: fixedBackend()}
			if err := m.addServables(c, &options); err == nil {
				if b, err := batch.New(emptyPredictor{}, options); err == nil {
					b.Close()
				}
			}
		})
	})
}
