package serveproto

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
)

// The bytes are written by hand, from the numbers in the protocols' documents. The tag of a field is eight
// times its number, plus 0 for a number, 1 for eight bytes, 2 for a value with a length, or 5 for four bytes.
func TestWire(t *testing.T) {
	for _, test := range []struct {
		name    string
		message proto.Message
		wire    string
	}{
		{"ModelInferRequest", &ModelInferRequest{
			ModelName: "bert", ModelVersion: "1", Id: "x",
			Parameters: map[string]*InferParameter{"p": {ParameterChoice: &InferParameter_Int64Param{Int64Param: 7}}},
			Inputs: []*ModelInferRequest_InferInputTensor{{
				Name: "i", Datatype: "INT32", Shape: []int64{1, 2},
				Parameters: map[string]*InferParameter{"p": {ParameterChoice: &InferParameter_BoolParam{BoolParam: true}}},
				Contents:   &InferTensorContents{IntContents: []int32{3, 4}},
			}},
			Outputs: []*ModelInferRequest_InferRequestedOutputTensor{{
				Name:       "o",
				Parameters: map[string]*InferParameter{"p": {ParameterChoice: &InferParameter_StringParam{StringParam: "s"}}},
			}},
			RawInputContents: [][]byte{{1, 2}, {3}},
		}, "\x0a\x04bert" + "\x12\x011" + "\x1a\x01x" +
			"\x22\x07" + "\x0a\x01p\x12\x02\x10\x07" +
			"\x2a\x1d" + "\x0a\x01i" + "\x12\x05INT32" + "\x1a\x02\x01\x02" +
			"\x22\x07\x0a\x01p\x12\x02\x08\x01" + "\x2a\x04\x12\x02\x03\x04" +
			"\x32\x0d" + "\x0a\x01o" + "\x12\x08\x0a\x01p\x12\x03\x1a\x01s" +
			"\x3a\x02\x01\x02" + "\x3a\x01\x03"},
		{"ModelInferResponse", &ModelInferResponse{
			ModelName: "bert", ModelVersion: "1", Id: "x",
			Parameters: map[string]*InferParameter{"p": {ParameterChoice: &InferParameter_Uint64Param{Uint64Param: 7}}},
			Outputs: []*ModelInferResponse_InferOutputTensor{{
				Name: "o", Datatype: "FP32", Shape: []int64{1},
				Parameters: map[string]*InferParameter{"p": {ParameterChoice: &InferParameter_DoubleParam{DoubleParam: 1}}},
				Contents:   &InferTensorContents{Fp32Contents: []float32{1}},
			}},
			RawOutputContents: [][]byte{{5}},
		}, "\x0a\x04bert" + "\x12\x011" + "\x1a\x01x" +
			"\x22\x07" + "\x0a\x01p\x12\x02\x28\x07" +
			"\x2a\x24" + "\x0a\x01o" + "\x12\x04FP32" + "\x1a\x01\x01" +
			"\x22\x0e\x0a\x01p\x12\x09\x21\x00\x00\x00\x00\x00\x00\xf0\x3f" + "\x2a\x06\x32\x04\x00\x00\x80\x3f" +
			"\x32\x01\x05"},
		{"InferTensorContents", &InferTensorContents{
			BoolContents: []bool{true, false}, IntContents: []int32{-1}, Int64Contents: []int64{2},
			UintContents: []uint32{3}, Uint64Contents: []uint64{4},
			Fp32Contents: []float32{1}, Fp64Contents: []float64{1}, BytesContents: [][]byte{[]byte("a"), nil},
		}, "\x0a\x02\x01\x00" + "\x12\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + "\x1a\x01\x02" +
			"\x22\x01\x03" + "\x2a\x01\x04" +
			"\x32\x04\x00\x00\x80\x3f" + "\x3a\x08\x00\x00\x00\x00\x00\x00\xf0\x3f" + "\x42\x01a" + "\x42\x00"},
		{"ModelStreamInferResponse",
			&ModelStreamInferResponse{ErrorMessage: "e", InferResponse: &ModelInferResponse{Id: "x"}},
			"\x0a\x01e" + "\x12\x03\x1a\x01x"},
		{"ModelMetadataResponse", &ModelMetadataResponse{
			Name: "bert", Versions: []string{"1"}, Platform: "p",
			Inputs:  []*ModelMetadataResponse_TensorMetadata{{Name: "i", Datatype: "INT32", Shape: []int64{-1}}},
			Outputs: []*ModelMetadataResponse_TensorMetadata{{Name: "o"}},
		}, "\x0a\x04bert" + "\x12\x011" + "\x1a\x01p" +
			"\x22\x16" + "\x0a\x01i" + "\x12\x05INT32" + "\x1a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" +
			"\x2a\x03" + "\x0a\x01o"},
		{"ModelStatistics", &ModelStatistics{
			Name: "bert", Version: "1", LastInference: 2, InferenceCount: 3, ExecutionCount: 4,
			InferenceStats: &InferStatistics{
				Success: &StatisticDuration{Count: 5, Ns: 6}, Queue: &StatisticDuration{Ns: 7},
				ComputeInfer: &StatisticDuration{Ns: 8},
			},
			BatchStats: []*InferBatchStatistics{{BatchSize: 9, ComputeInfer: &StatisticDuration{Count: 1}}},
		}, "\x0a\x04bert" + "\x12\x011" + "\x18\x02" + "\x20\x03" + "\x28\x04" +
			"\x32\x0e" + "\x0a\x04\x08\x05\x10\x06" + "\x1a\x02\x10\x07" + "\x2a\x02\x10\x08" +
			"\x3a\x06" + "\x08\x09" + "\x1a\x02\x08\x01"},
		{"ModelConfig", &ModelConfig{
			Name: "bert", Platform: "p", Backend: "b", MaxBatchSize: 8,
			VersionPolicy: &ModelVersionPolicy{PolicyChoice: &ModelVersionPolicy_Specific_{
				Specific: &ModelVersionPolicy_Specific{Versions: []int64{1}},
			}},
			Input: []*ModelInput{{
				Name: "i", DataType: DataType_TYPE_INT32, Dims: []int64{1}, Reshape: &ModelTensorReshape{}, Optional: true,
			}},
			Output: []*ModelOutput{{
				Name: "o", DataType: DataType_TYPE_FP32, Dims: []int64{2},
				Reshape: &ModelTensorReshape{Shape: []int64{3}},
			}},
			InstanceGroup:   []*ModelInstanceGroup{{Name: "g", Count: 2, Gpus: []int32{0}, Kind: ModelInstanceGroup_KIND_GPU}},
			Optimization:    accelerated("a"),
			ResponseCache:   &ModelResponseCache{Enable: true},
			Parameters:      map[string]*ModelParameter{"k": {StringValue: "v"}},
			ModelWarmup:     []*ModelWarmup{{Name: "w", BatchSize: 1}},
			MetricTags:      map[string]string{"k": "v"},
			ModelOperations: &ModelOperations{OpLibraryFilename: []string{"f"}},
			SchedulingChoice: &ModelConfig_DynamicBatching{DynamicBatching: &ModelDynamicBatching{
				PreferredBatchSize: []int32{4, 8}, MaxQueueDelayMicroseconds: 100, PreserveOrdering: true,
				PriorityLevels: 2, DefaultPriorityLevel: 1,
				DefaultQueuePolicy: &ModelQueuePolicy{
					TimeoutAction: ModelQueuePolicy_DELAY, DefaultTimeoutMicroseconds: 5, AllowTimeoutOverride: true,
					MaxQueueSize: 6,
				},
				PriorityQueuePolicy: map[uint64]*ModelQueuePolicy{1: {MaxQueueSize: 3}},
			}},
		}, "\x0a\x04bert" + "\x12\x01p" + "\x1a\x05\x1a\x03\x0a\x01\x01" + "\x20\x08" +
			"\x2a\x0c" + "\x0a\x01i" + "\x10\x08" + "\x22\x01\x01" + "\x2a\x00" + "\x40\x01" +
			"\x32\x0d" + "\x0a\x01o" + "\x10\x0b" + "\x1a\x01\x02" + "\x2a\x03\x0a\x01\x03" +
			"\x3a\x0a" + "\x0a\x01g" + "\x10\x02" + "\x1a\x01\x00" + "\x20\x01" +
			"\x52\x06\x0a\x01k\x12\x01v" +
			"\x5a\x1e" + "\x0a\x02\x04\x08" + "\x10\x64" + "\x18\x01" + "\x20\x02" + "\x28\x01" +
			"\x32\x08\x08\x01\x10\x05\x18\x01\x20\x06" + "\x3a\x06\x08\x01\x12\x02\x20\x03" +
			"\x62\x07" + "\x22\x05\x0a\x03\x0a\x01a" +
			"\x72\x08\x0a\x01k\x12\x03\x0a\x01v" +
			"\x82\x01\x05\x0a\x01w\x10\x01" +
			"\x8a\x01\x01b" +
			"\x92\x01\x03\x0a\x01f" +
			"\xc2\x01\x02\x08\x01"},
		{"RepositoryModelLoadRequest", &RepositoryModelLoadRequest{
			RepositoryName: "r", ModelName: "bert",
			Parameters: map[string]*ModelRepositoryParameter{
				"config": {ParameterChoice: &ModelRepositoryParameter_StringParam{StringParam: "{}"}},
			},
		}, "\x0a\x01r" + "\x12\x04bert" + "\x1a\x0e\x0a\x06config\x12\x04\x1a\x02{}"},
		{"RepositoryIndexResponse", &RepositoryIndexResponse{Models: []*RepositoryIndexResponse_ModelIndex{
			{Name: "bert", Version: "1", State: "READY", Reason: "r"},
		}},
			"\x0a\x13" + "\x0a\x04bert" + "\x12\x011" + "\x1a\x05READY" + "\x22\x01r"},

		{"ModelSpec of a version",
			&ModelSpec{Name: "bert", VersionChoice: &ModelSpec_Version{Version: wrapperspb.Int64(3)}, SignatureName: "s"},
			"\x0a\x04bert" + "\x12\x02\x08\x03" + "\x1a\x01s"},
		{"ModelSpec of a label", &ModelSpec{Name: "bert", VersionChoice: &ModelSpec_VersionLabel{VersionLabel: "l"}},
			"\x0a\x04bert" + "\x22\x01l"},
		{"PredictRequest", &PredictRequest{
			ModelSpec: &ModelSpec{Name: "bert"},
			Inputs: map[string]*tfproto.TensorProto{
				"i": {Dtype: 3, TensorShape: tfproto.NewShape([]int64{2}), IntVal: []int32{5, 6}},
			},
			OutputFilter: []string{"o"},
		}, "\x0a\x06\x0a\x04bert" +
			"\x12\x11" + "\x0a\x01i" + "\x12\x0c" + "\x08\x03" + "\x12\x04\x12\x02\x08\x02" + "\x3a\x02\x05\x06" +
			"\x1a\x01o"},
		{"PredictResponse", &PredictResponse{
			Outputs: map[string]*tfproto.TensorProto{
				"o": {Dtype: 1, TensorContent: []byte{1}, FloatVal: []float32{1}, StringVal: [][]byte{[]byte("s")}},
			},
			ModelSpec: &ModelSpec{Name: "bert"},
		}, "\x0a\x13" + "\x0a\x01o" + "\x12\x0e" + "\x08\x01" + "\x22\x01\x01" + "\x2a\x04\x00\x00\x80\x3f" + "\x42\x01s" +
			"\x12\x06\x0a\x04bert"},
		{"SignatureDefMap", &SignatureDefMap{SignatureDef: map[string]*tfproto.SignatureDef{"d": {
			Inputs: map[string]*tfproto.TensorInfo{
				"i": {Encoding: &tfproto.TensorInfo_Name{Name: "n"}, Dtype: 3},
			},
			MethodName: "m",
		}}}, "\x0a\x14" + "\x0a\x01d" + "\x12\x0f" + "\x0a\x0a\x0a\x01i\x12\x05\x0a\x01n\x10\x03" + "\x1a\x01m"},
		{"GetModelMetadataRequest",
			&GetModelMetadataRequest{ModelSpec: &ModelSpec{Name: "bert"}, MetadataField: []string{"signature_def"}},
			"\x0a\x06\x0a\x04bert" + "\x12\x0dsignature_def"},
		{"GetModelStatusResponse", &GetModelStatusResponse{ModelVersionStatus: []*ModelVersionStatus{{
			Version: 1, State: ModelVersionStatus_AVAILABLE, Status: &StatusProto{ErrorCode: 2, ErrorMessage: "e"},
		}}}, "\x0a\x0b" + "\x08\x01" + "\x10\x1e" + "\x1a\x05\x08\x02\x12\x01e"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// The order of the fields is free, so the messages are compared. A field of another number or
			// type would be an unknown one.
			got := test.message.ProtoReflect().New().Interface()
			require.NoError(t, proto.Unmarshal([]byte(test.wire), got))
			assert.True(t, proto.Equal(test.message, got), "%v", got)
			assert.Equal(t, len(test.wire), proto.Size(test.message))
		})
	}
}

func accelerated(by string) *ModelOptimizationPolicy {
	return &ModelOptimizationPolicy{ExecutionAccelerators: &ModelOptimizationPolicy_ExecutionAccelerators{
		GpuExecutionAccelerator: []*ModelOptimizationPolicy_ExecutionAccelerators_Accelerator{{Name: by}},
	}}
}

func TestNVIDIAConfig(t *testing.T) {
	var got ModelConfig
	require.NoError(t, prototext.Unmarshal([]byte(testenv.NVIDIAConfig), &got))

	in := func(name string) *ModelInput {
		return &ModelInput{Name: name, DataType: DataType_TYPE_INT32, Dims: []int64{384}}
	}
	out := func(name string) *ModelOutput {
		return &ModelOutput{Name: name, DataType: DataType_TYPE_FP32, Dims: []int64{384}}
	}
	want := &ModelConfig{
		Name: "bert", Platform: "tensorflow_savedmodel", MaxBatchSize: 4,
		Optimization: accelerated("auto_mixed_precision"),
		Input: []*ModelInput{
			// A reshape to no dimensions is not the same as none.
			{Name: "unique_ids", DataType: DataType_TYPE_INT32, Dims: []int64{1}, Reshape: &ModelTensorReshape{}},
			in("segment_ids"), in("input_ids"), in("input_mask"),
		},
		Output: []*ModelOutput{out("end_logits"), out("start_logits")},
		SchedulingChoice: &ModelConfig_DynamicBatching{DynamicBatching: &ModelDynamicBatching{
			PreferredBatchSize: []int32{2, 4}, MaxQueueDelayMicroseconds: 1000,
		}},
		InstanceGroup: []*ModelInstanceGroup{{Count: 2}},
	}
	assert.True(t, proto.Equal(want, &got), "%v", &got)
}

// Configurations may have other fields too, even some that the server does not use.
func TestConfigFields(t *testing.T) {
	var c ModelConfig
	require.NoError(t, prototext.Unmarshal([]byte(`
		backend: "tensorflow"
		runtime: ""
		default_model_filename: "model.savedmodel"
		version_policy { latest { num_versions: 2 } }
		input { name: "i" data_type: TYPE_STRING format: FORMAT_NONE dims: [ -1 ] optional: true allow_ragged_batch: false }
		optimization {
			priority: PRIORITY_MAX
			graph { level: 1 }
			cuda { graphs: true graph_spec { batch_size: 1 input { key: "i" value { dim: [ 1 ] } } } }
			input_pinned_memory { enable: true }
			execution_accelerators {
				gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }
				cpu_execution_accelerator [ { name: "openvino" } ]
			}
		}
		dynamic_batching {
			priority_levels: 2
			priority_queue_policy { key: 1 value: { timeout_action: REJECT max_queue_size: 4 } }
		}
		instance_group [ { name: "g" kind: KIND_GPU count: 1 gpus: [ 0, 1 ] rate_limiter { priority: 1 } } ]
		cc_model_filenames { key: "8.0" value: "f" }
		parameters: { key: "TF_NUM_INTRA_THREADS" value: { string_value: "2" } }
		model_warmup [ {
			name: "w" batch_size: 1
			inputs { key: "i" value { data_type: TYPE_INT32 dims: 1 zero_data: true } }
		} ]
		model_transaction_policy { decoupled: false }
		response_cache { enable: true }
	`), &c))
	assert.Equal(t, uint32(2), c.GetVersionPolicy().GetLatest().GetNumVersions())
	accelerators := c.GetOptimization().GetExecutionAccelerators().GetGpuExecutionAccelerator()
	assert.Equal(t, "FP16", accelerators[0].GetParameters()["precision_mode"])
	assert.Equal(t, uint32(4), c.GetDynamicBatching().GetPriorityQueuePolicy()[1].GetMaxQueueSize())
	assert.Equal(t, []int32{0, 1}, c.GetInstanceGroup()[0].GetGpus())
	assert.Equal(t, "2", c.GetParameters()["TF_NUM_INTRA_THREADS"].GetStringValue())
	assert.True(t, c.GetModelWarmup()[0].GetInputs()["i"].GetZeroData())
	assert.True(t, c.GetResponseCache().GetEnable())
	assert.Error(t, prototext.Unmarshal([]byte(`max_bach_size: 1`), &c))
}
