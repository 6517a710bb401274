package serve

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/internal/fakemodel"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/repository"
)

// huggingFace makes the signature that Hugging Face's exporter writes.
func huggingFace(b *repository.Backend) {
	matrix := func(name, kind, as string) repository.TensorInfo {
		return repository.TensorInfo{
			Name: name, Type: kind, Shape: []int64{-1, -1}, As: as, TensorName: "serving_default_" + name + ":0",
		}
	}
	b.Inputs = []repository.TensorInfo{
		matrix("attention_mask", repository.Int64, "input_mask"),
		matrix("input_ids", repository.Int64, "input_ids"),
		matrix("token_type_ids", repository.Int64, "segment_ids"),
	}
	b.Outputs = []repository.TensorInfo{
		matrix("output_0", repository.Float32, "start_logits"), matrix("output_1", repository.Float32, "end_logits"),
	}
}

var foreignInputs = []struct {
	name   string
	values []int64
}{{"input_ids", []int64{2, 7, 3, 9}}, {"attention_mask", []int64{1, 1, 1, 1}}, {"token_type_ids", []int64{0, 0, 0, 1}}}

// Clients see a model's own signature in every protocol, and questions are answered all the same.
func TestForeignSignature(t *testing.T) {
	f := startServer(t, &setup{models: fakemodel.Models{Edit: huggingFace}})
	start, end := fakemodel.Logits([]int32{2, 7, 3, 9}, 1)
	startBytes, endBytes := floatBytes(start), floatBytes(end)
	const infer = "/v2/models/bert/infer"

	t.Run("answers", func(t *testing.T) {
		w := f.ask("POST", "/v1/answer", []byte(question(9)))
		require.Equal(t, 200, w.Code, w.Body.String())
		assert.Contains(t, w.Body.String(), `"answer":"w9"`)
	})

	t.Run("metadata", func(t *testing.T) {
		assert.Contains(t, f.ask("GET", "/v2/models/bert", nil).Body.String(),
			`{"name":"attention_mask","datatype":"INT64","shape":[-1,-1]}`)
		assert.Contains(t, f.ask("GET", "/v2/models/bert/config", nil).Body.String(), `"TYPE_INT64"`)
		assert.Contains(t, f.ask("GET", "/v1/models/bert/metadata", nil).Body.String(), `"DT_INT64"`)
	})

	var inputs, binaries string
	var data []byte
	for i, in := range foreignInputs {
		values, err := json.Marshal(in.values)
		require.NoError(t, err)
		comma := ","[:min(i, 1)]
		inputs += fmt.Sprintf(`%s{"name":%q,"datatype":"INT64","shape":[1,4],"data":%s}`, comma, in.name, values)
		binaries += fmt.Sprintf(`%s{"name":%q,"datatype":"INT64","shape":[1,4],"parameters":{"binary_data_size":32}}`,
			comma, in.name)
		data = append(data, int64Bytes(in.values)...)
	}

	t.Run("OIP in JSON", func(t *testing.T) {
		w := f.ask("POST", infer, []byte(`{"inputs":[`+inputs+`]}`))
		require.Equal(t, 200, w.Code, w.Body.String())
		var response struct {
			Outputs []struct {
				Name string
				Data []float32
			}
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &response))
		require.Len(t, response.Outputs, 2)
		assert.Equal(t, "output_0", response.Outputs[0].Name)
		assert.Equal(t, start, response.Outputs[0].Data)
		assert.Equal(t, end, response.Outputs[1].Data)
		requireError(t, 400, `input "input_ids" holds 4294967296: it must hold whole numbers of 32 bits`,
			f.ask("POST", infer,
				[]byte(`{"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,1],"data":[4294967296]}]}`)))
	})

	t.Run("OIP in binary", func(t *testing.T) {
		text := `{"parameters":{"binary_data_output":true},"inputs":[` + binaries + `]}`
		w := f.ask("POST", infer, append([]byte(text), data...), headerLength+": "+strconv.Itoa(len(text)))
		require.Equal(t, 200, w.Code, w.Body.String())
		assert.Equal(t, append(startBytes, endBytes...), w.Body.Bytes()[w.Body.Len()-32:])
		text = `{"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,1],"parameters":{"binary_data_size":4}}]}`
		requireError(t, 400, "has 4 bytes: an element of INT64 has 8",
			f.ask("POST", infer, append([]byte(text), 0, 0, 0, 0), headerLength+": "+strconv.Itoa(len(text))))
		text = `{"inputs":[{"name":"input_ids","datatype":"INT64","shape":[1,1],"parameters":{"binary_data_size":8}}]}`
		requireError(t, 400, "holds 1099511627776: it must hold whole numbers of 32 bits",
			f.ask("POST", infer, append([]byte(text), 0, 0, 0, 0, 0, 1, 0, 0), headerLength+": "+strconv.Itoa(len(text))))
	})

	t.Run("OIP over gRPC", func(t *testing.T) {
		c := pb.NewInferenceClient(f.dial(t))
		for _, raw := range []bool{false, true} {
			r := &pb.ModelInferRequest{ModelName: "bert"}
			for _, input := range foreignInputs {
				in := &pb.ModelInferRequest_InferInputTensor{Name: input.name, Datatype: "INT64", Shape: []int64{1, 4}}
				if raw {
					r.RawInputContents = append(r.RawInputContents, int64Bytes(input.values))
				} else {
					in.Contents = &pb.InferTensorContents{Int64Contents: input.values}
				}
				r.Inputs = append(r.Inputs, in)
			}
			response, err := c.ModelInfer(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, [][]byte{startBytes, endBytes}, response.GetRawOutputContents())
			if !raw {
				r.Inputs[0].Contents.Int64Contents[0] = 1 << 40
				_, err = c.ModelInfer(t.Context(), r)
				requireCode(t, codes.InvalidArgument, "whole numbers of 32 bits", err)
				r.Inputs[0].Contents.Int64Contents[0] = 2
			}
		}
	})

	t.Run("TensorFlow Serving in JSON", func(t *testing.T) {
		w := f.ask("POST", "/v1/models/bert:predict",
			[]byte(`{"instances":[{"input_ids":[2,7,3,9],"attention_mask":[1,1,1,1],"token_type_ids":[0,0,0,1]}]}`))
		require.Equal(t, 200, w.Code, w.Body.String())
		var response struct {
			Predictions []struct {
				Start []float32 `json:"output_0"`
			}
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &response))
		assert.Equal(t, start, response.Predictions[0].Start)
	})

	t.Run("TensorFlow Serving over gRPC", func(t *testing.T) {
		c := pb.NewPredictionClient(f.dial(t))
		for _, content := range []bool{false, true} {
			r := &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "bert"}, Inputs: map[string]*tfproto.TensorProto{}}
			for _, in := range foreignInputs {
				p := &tfproto.TensorProto{Dtype: 9, TensorShape: tensor.ShapeProto([]int64{1, 4})}
				switch {
				case content:
					p.TensorContent = int64Bytes(in.values)
				case in.name == "attention_mask":
					p.Int64Val = in.values[:1] // which stands for all
				default:
					p.Int64Val = in.values
				}
				r.Inputs[in.name] = p
			}
			response, err := c.Predict(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, start, response.GetOutputs()["output_0"].GetFloatVal())
			r.Inputs["input_ids"].Int64Val, r.Inputs["input_ids"].TensorContent = []int64{2, 1 << 40, 3, 4}, nil
			_, err = c.Predict(t.Context(), r)
			requireCode(t, codes.InvalidArgument, "whole numbers of 32 bits", err)
		}
	})
}

// A model without segments or ids of windows is asked without them; what it has comes back in its own type.
func TestForeignSignatureParts(t *testing.T) {
	f := newFixture(t, &setup{models: fakemodel.Models{Edit: func(b *repository.Backend) {
		huggingFace(b)
		ids := repository.TensorInfo{Name: "unique_ids", Type: repository.Int64, Shape: []int64{-1}}
		b.Inputs, b.Outputs = append(b.Inputs[:2], ids), append(b.Outputs, ids)
	}}})
	w := f.ask("POST", "/v2/models/bert/infer", []byte(`{"inputs":[
		{"name":"input_ids","datatype":"INT64","shape":[1,4],"data":[2,7,3,9]},
		{"name":"attention_mask","datatype":"INT64","shape":[1,4],"data":[1,1,1,1]},
		{"name":"unique_ids","datatype":"INT64","shape":[1,1],"data":[5]}]}`))
	require.Equal(t, 200, w.Code, w.Body.String())
	assert.Contains(t, w.Body.String(), `{"name":"unique_ids","datatype":"INT64","shape":[1,1],"data":[5]}`)
	requireError(t, 400, `input "attention_mask" has the shape [1 3], input "input_ids" [1 4]: they must be the same`,
		f.ask("POST", "/v2/models/bert/infer", []byte(`{"inputs":[
		{"name":"input_ids","datatype":"INT64","shape":[1,4],"data":[2,7,3,9]},
		{"name":"attention_mask","datatype":"INT64","shape":[1,3],"data":[1,1,1]},
		{"name":"unique_ids","datatype":"INT64","shape":[1,1],"data":[5]}]}`)))
}

func int64Bytes(values []int64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func floatBytes(values []float32) []byte {
	return tensor.AppendBinary(nil, &repository.Tensor{Float32s: values})
}
