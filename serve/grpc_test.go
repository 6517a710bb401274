package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tfbert/go/internal/fakemodel"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// textRequest returns the question for the nth key, to the text model.
func textRequest(n int) *pb.ModelInferRequest {
	return askRequest(fmt.Sprint(n), "find "+fakemodel.Key(n), "a b "+fakemodel.Key(n))
}

// askRequest returns a question to the text model.
func askRequest(id, question, document string) *pb.ModelInferRequest {
	input := func(name, text string) *pb.ModelInferRequest_InferInputTensor {
		return &pb.ModelInferRequest_InferInputTensor{
			Name: name, Datatype: "BYTES", Shape: []int64{1, 1},
			Contents: &pb.InferTensorContents{BytesContents: [][]byte{[]byte(text)}},
		}
	}
	return &pb.ModelInferRequest{
		ModelName: "bert_qa", Id: id,
		Inputs:  []*pb.ModelInferRequest_InferInputTensor{input("QUESTION", question), input("CONTEXT", document)},
		Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "ANSWER"}},
	}
}

// textAnswer returns the answer in a response to such a request.
func textAnswer(t testing.TB, r *pb.ModelInferResponse) string {
	t.Helper()
	require.Len(t, r.GetRawOutputContents(), 1)
	return string(r.GetRawOutputContents()[0][4:])
}

// tensorRequest returns a request with a row of tokens, as contents or raw.
func tensorRequest(raw bool, ids ...int32) *pb.ModelInferRequest {
	r := &pb.ModelInferRequest{ModelName: "bert", ModelVersion: "1", Id: "x"}
	addInput := func(name string, shape []int64, values ...int32) {
		in := &pb.ModelInferRequest_InferInputTensor{Name: name, Datatype: "INT32", Shape: shape}
		if raw {
			t := repository.Tensor{Int32s: values}
			r.RawInputContents = append(r.RawInputContents, tensor.AppendBinary(nil, &t))
		} else {
			in.Contents = &pb.InferTensorContents{IntContents: values}
		}
		r.Inputs = append(r.Inputs, in)
	}
	shape := []int64{1, int64(len(ids))}
	addInput("input_ids", shape, ids...)
	addInput("input_mask", shape, make([]int32, len(ids))...)
	addInput("segment_ids", shape, make([]int32, len(ids))...)
	addInput("unique_ids", []int64{1, 1}, 5)
	return r
}

// requireCode fails a test unless an error has a code and a message.
func requireCode(t testing.TB, code codes.Code, message string, err error) {
	t.Helper()
	require.Equal(t, code, status.Code(err), "%v", err)
	require.Contains(t, status.Convert(err).Message(), message)
	require.NotContains(t, status.Convert(err).Message(), ".go:")
}

func TestInferenceService(t *testing.T) {
	f := startServer(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	c, ctx := pb.NewInferenceClient(f.dial(t)), t.Context()

	live, err := c.ServerLive(ctx, &pb.ServerLiveRequest{})
	require.NoError(t, err)
	assert.True(t, live.GetLive())
	ready, err := c.ServerReady(ctx, &pb.ServerReadyRequest{})
	require.NoError(t, err)
	assert.True(t, ready.GetReady())
	server, err := c.ServerMetadata(ctx, &pb.ServerMetadataRequest{})
	require.NoError(t, err)
	assert.Equal(t, "1.2.3", server.GetVersion())
	for name, want := range map[string]bool{"bert": true, "bert_qa": true, "other": false, "": false, "../bert": false} {
		m, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: name})
		require.NoError(t, err)
		assert.Equal(t, want, m.GetReady(), name)
	}
	_, err = c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "bert", Version: "x"})
	requireCode(t, codes.InvalidArgument, "is not a valid version", err)
	about, err := c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "bert"})
	require.NoError(t, err)
	assert.Equal(t, []string{"1"}, about.GetVersions())
	assert.Len(t, about.GetInputs(), 4)
	config, err := c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "bert", Version: "1"})
	require.NoError(t, err)
	assert.EqualValues(t, 8, config.GetConfig().GetMaxBatchSize())
	for _, call := range []func() error{
		func() error { _, err := c.ModelMetadata(ctx, &pb.ModelMetadataRequest{}); return err },
		func() error { _, err := c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "x"}); return err },
		func() error { _, err := c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "x"}); return err },
		func() error { _, err := c.ModelInfer(ctx, &pb.ModelInferRequest{}); return err },
		func() error {
			_, err := c.ModelInfer(ctx, &pb.ModelInferRequest{ModelName: "bert", ModelVersion: "2"})
			return err
		},
		func() error {
			_, err := c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "../x"})
			return err
		},
		func() error {
			_, err := c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "x"})
			return err
		},
	} {
		requireCode(t, codes.NotFound, "", call())
	}

	r, err := c.ModelInfer(ctx, textRequest(7))
	require.NoError(t, err)
	assert.Equal(t, "w7", textAnswer(t, r))
	assert.Equal(t, "7", r.GetId())
	assert.Equal(t, "bert_qa", r.GetModelName())
	stats, err := c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "bert_qa"})
	require.NoError(t, err)
	assert.EqualValues(t, 1, stats.GetModelStats()[0].GetInferenceCount())
	stats, err = c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{})
	require.NoError(t, err)
	assert.Len(t, stats.GetModelStats(), 2)

	index, err := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: true})
	require.NoError(t, err)
	assert.Len(t, index.GetModels(), 2)
	_, err = c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "bert"})
	require.NoError(t, err)
	_, err = c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{
		ModelName: "bert", Parameters: map[string]*pb.ModelRepositoryParameter{"config": {}},
	})
	requireCode(t, codes.InvalidArgument, "must be a string", err)
	_, err = c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "bert"})
	require.NoError(t, err)
	_, err = c.ModelInfer(ctx, textRequest(7))
	requireCode(t, codes.Unavailable, "unloaded", err)
	m, err := c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "bert"})
	require.NoError(t, err)
	assert.False(t, m.GetReady())
}

func TestModelInfer(t *testing.T) {
	f := startServer(t, &setup{repo: repository.Options{Batching: batch.Options{MaxSize: 1}}})
	c := pb.NewInferenceClient(f.dial(t))
	ids := []int32{2, fakemodel.ID("w1"), 3, fakemodel.ID("w1"), fakemodel.ID("w2")}
	starts, _ := fakemodel.Logits(ids, 1)
	for _, raw := range []bool{true, false} {
		r, err := c.ModelInfer(t.Context(), tensorRequest(raw, ids...))
		require.NoError(t, err)
		require.Len(t, r.GetOutputs(), 3)
		assert.Equal(t, []int64{1, 5}, r.GetOutputs()[0].GetShape())
		assert.Equal(t, []int64{1, 1}, r.GetOutputs()[2].GetShape())
		assert.Equal(t, tensor.AppendBinary(nil, &repository.Tensor{Float32s: starts}), r.GetRawOutputContents()[0])
		assert.Equal(t, littleEndian(5), r.GetRawOutputContents()[2])
		assert.Contains(t, r.GetParameters(), "compute_us")
	}
	for _, tt := range []struct {
		want   string
		raw    bool
		change func(*pb.ModelInferRequest)
	}{
		{"3 raw_input_contents for 4 inputs", true, func(r *pb.ModelInferRequest) {
			r.RawInputContents = r.RawInputContents[:3]
		}},
		{"5 raw_input_contents for 4 inputs", true, func(r *pb.ModelInferRequest) {
			r.RawInputContents = append(r.RawInputContents, nil)
		}},
		{"contents beside the request's raw_input_contents", true, func(r *pb.ModelInferRequest) {
			r.Inputs[1].Contents = &pb.InferTensorContents{}
		}},
		{"has 19 bytes: an element of INT32 has 4", true, func(r *pb.ModelInferRequest) {
			r.RawInputContents[0] = r.RawInputContents[0][:19]
		}},
		{"but 4 elements", true, func(r *pb.ModelInferRequest) { r.RawInputContents[0] = r.RawInputContents[0][:16] }},
		{"but 0 elements", false, func(r *pb.ModelInferRequest) { r.Inputs[0].Contents = nil }},
		{"but 0 elements", false, func(r *pb.ModelInferRequest) {
			r.Inputs[0].Contents = &pb.InferTensorContents{Int64Contents: []int64{1, 2, 3, 4, 5}}
		}},
		{"which no tensor can have", false, func(r *pb.ModelInferRequest) { r.Inputs[0].Shape = []int64{1 << 40, 1 << 40} }},
		{"which no tensor can have", false, func(r *pb.ModelInferRequest) { r.Inputs[0].Shape = []int64{-1, -5} }},
		{`does not have an input "x"`, false, func(r *pb.ModelInferRequest) { r.Inputs[0].Name = "x" }},
		{`does not have an output "x"`, false, func(r *pb.ModelInferRequest) {
			r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "x"}}
		}},
		{"takes at most 1", false, func(r *pb.ModelInferRequest) {
			*r = *proto.CloneOf(r)
			for _, in := range r.Inputs[:3] {
				in.Shape = []int64{5, 1}
			}
			r.Inputs[3].Shape, r.Inputs[3].Contents.IntContents = []int64{5}, make([]int32, 5)
		}},
		{"unknown priority", false, func(r *pb.ModelInferRequest) {
			r.Parameters = map[string]*pb.InferParameter{
				"priority": {ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: 1 << 63}},
			}
		}},
	} {
		r := tensorRequest(tt.raw, ids...)
		tt.change(r)
		_, err := c.ModelInfer(t.Context(), r)
		requireCode(t, codes.InvalidArgument, tt.want, err)
	}
	shared := map[string]*pb.InferParameter{"shared_memory_region": {}}
	r := tensorRequest(false, ids...)
	r.Inputs[0].Parameters = shared
	_, err := c.ModelInfer(t.Context(), r)
	requireCode(t, codes.Unimplemented, "shared memory", err)
	for _, name := range []string{"shared_memory_region", "classification"} {
		r := tensorRequest(false, ids...)
		r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{
			{Name: "start_logits", Parameters: map[string]*pb.InferParameter{name: {}}},
		}
		_, err := c.ModelInfer(t.Context(), r)
		requireCode(t, codes.Unimplemented, "not supported", err)
	}
	for _, ids := range []int32{fakemodel.ID("fail"), fakemodel.ID("crash"), fakemodel.ID("short")} {
		_, err := c.ModelInfer(t.Context(), tensorRequest(false, 2, ids, 3))
		requireCode(t, codes.Internal, "", err)
	}
	assert.Contains(t, f.log.String(), "fakemodel.go", "the stack of the panic is in the log")
	answer, err := c.ModelInfer(t.Context(), textRequest(3))
	require.NoError(t, err)
	assert.Equal(t, "w3", textAnswer(t, answer))
}

// The error of a request that finds a full queue tells when to try again.
func TestRetryInfo(t *testing.T) {
	f := startServer(t, &setup{
		models: fakemodel.Models{Delay: time.Minute},
		repo:   repository.Options{Batching: batch.Options{MaxSize: 1, MaxQueue: 1}},
	})
	c := pb.NewInferenceClient(f.dial(t))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for n := range 2 {
		go func() {
			_, err := c.ModelInfer(ctx, askRequest("", "find slow", "slow"))
			ended <- err
		}()
		if n == 0 {
			m, err := f.host.Models.Acquire("bert", 0)
			require.NoError(t, err)
			eventually(t, "it runs", func() bool { return m.Batcher().Running() == 1 })
			defer eventually(t, "none runs", func() bool { return m.Batcher().Running()+m.Batcher().Waiting() == 0 })
			m.Release()
		}
	}
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	eventually(t, "one waits", func() bool { return m.Batcher().Waiting() == 1 })
	m.Release()
	_, err = c.ModelInfer(t.Context(), textRequest(1))
	requireCode(t, codes.ResourceExhausted, "the queue is full", err)
	details := status.Convert(err).Details()
	require.Len(t, details, 1)
	assert.GreaterOrEqual(t, details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration(), time.Second)

	short, cancelShort := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelShort()
	_, err = pb.NewPredictionClient(f.dial(t)).Predict(short, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "bert"}})
	requireCode(t, codes.InvalidArgument, "is missing", err)
	cancel()
	for range 2 {
		requireCode(t, codes.Canceled, "", <-ended)
	}
}

// A stream is answered in its order, however long each request takes, and goes on after errors.
func TestModelStreamInfer(t *testing.T) {
	f := startServer(t, &setup{models: fakemodel.Models{Delay: 100 * time.Millisecond}})
	stream, err := pb.NewInferenceClient(f.dial(t)).ModelStreamInfer(t.Context())
	require.NoError(t, err)
	requests := []*pb.ModelInferRequest{askRequest("slow", "find w0", "slow w0")}
	for n := 1; n < 100; n++ {
		switch r := textRequest(n); {
		case n == 50:
			requests = append(requests, askRequest("50", "find crash", "a"))
		case n == 60:
			requests = append(requests, askRequest("60", "", "a"))
		case n == 70:
			r.ModelName = "other"
			requests = append(requests, r)
		default:
			requests = append(requests, r)
		}
	}
	go func() {
		for _, r := range requests {
			assert.NoError(t, stream.Send(r))
		}
		assert.NoError(t, stream.CloseSend())
	}()
	for n, r := range requests {
		answer, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, r.GetId(), answer.GetInferResponse().GetId(), "in order")
		switch n {
		case 50:
			assert.Contains(t, answer.GetErrorMessage(), "its log says why")
		case 60:
			assert.Contains(t, answer.GetErrorMessage(), "the question is empty")
		case 70:
			assert.Contains(t, answer.GetErrorMessage(), "there is no model")
		default:
			require.Empty(t, answer.GetErrorMessage())
			assert.Equal(t, fakemodel.Key(n), textAnswer(t, answer.GetInferResponse()))
		}
	}
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	assert.Contains(t, f.log.String(), "fakemodel.go", "the stack of the panic is in the log")
	metrics := f.ask("GET", "/metrics", nil).Body.String()
	count := `tfbert_requests_total{status="%s",verb="/inference.GRPCInferenceService/ModelStreamInfer"} %d`
	assert.Contains(t, metrics, fmt.Sprintf(count, "OK", 97), "its requests are counted, and not the stream")
	assert.Contains(t, metrics, fmt.Sprintf(count, "NotFound", 1))
}

// The requests of a stream take the places of calls.
func TestStreamIsBounded(t *testing.T) {
	release := make(chan struct{})
	var blocks atomic.Bool // after the warm-up
	f := startServer(t, &setup{
		serve: Options{MaxRequests: 1},
		models: fakemodel.Models{OnBatch: func(context.Context, repository.Source, []squad.Feature) error {
			if blocks.Load() {
				<-release
			}
			return nil
		}},
	})
	blocks.Store(true)
	stream, err := pb.NewInferenceClient(f.dial(t)).ModelStreamInfer(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(textRequest(1)))
	eventually(t, "the first has the place", func() bool {
		leave, err := f.questions.Enter()
		if err == nil {
			leave()
		}
		return err != nil
	})
	require.NoError(t, stream.Send(textRequest(2)))
	eventually(t, "the second is refused", func() bool {
		return strings.Contains(f.ask("GET", "/metrics", nil).Body.String(), `status="ResourceExhausted"`)
	})
	close(release)
	answer, err := stream.Recv()
	require.NoError(t, err)
	assert.Equal(t, "w1", textAnswer(t, answer.GetInferResponse()))
	answer, err = stream.Recv()
	require.NoError(t, err)
	assert.Contains(t, answer.GetErrorMessage(), "1 requests under way")
}

// Statistics are of all versions, unless the request names one.
func TestStatisticsOfVersions(t *testing.T) {
	f := newFixture(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	f.addVersion(t, "bert", 2)
	config := filepath.Join(f.root, "bert", "config.pbtxt")
	require.NoError(t, os.WriteFile(config, []byte("version_policy { all {} } optimization { cuda {} }"), 0o644))
	require.NoError(t, f.host.Models.Load(t.Context(), "bert"))
	assert.Contains(t, f.log.String(), `msg="config.pbtxt has a field that is not followed" model=bert field=optimization.cuda`)
	for path, want := range map[string]int{"bert": 2, "bert_qa": 2, "bert/versions/1": 1, "bert_qa/versions/2": 1} {
		w := f.ask("GET", "/v2/models/"+path+"/stats", nil)
		assert.Equal(t, want, strings.Count(w.Body.String(), `"inference_stats"`), path)
	}
	assert.Equal(t, 404, f.ask("GET", "/v2/models/bert/versions/3/stats", nil).Code)
}

func TestCancelledStream(t *testing.T) {
	f := startServer(t, &setup{models: fakemodel.Models{Delay: time.Minute}})
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	defer m.Release()
	conn := f.dial(t)
	_, err = pb.NewInferenceClient(conn).ServerLive(t.Context(), &pb.ServerLiveRequest{})
	require.NoError(t, err)
	requireNoLeaks := watchGoroutines(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := pb.NewInferenceClient(conn).ModelStreamInfer(ctx)
	require.NoError(t, err)
	for range 50 {
		require.NoError(t, stream.Send(askRequest("", "find slow", "slow")))
	}
	eventually(t, "they wait", func() bool { return m.Batcher().Waiting() >= 20 })
	cancel()
	_, err = stream.Recv()
	requireCode(t, codes.Canceled, "", err)
	eventually(t, "none waits", func() bool { return m.Batcher().Waiting()+m.Batcher().Running() == 0 })
	requireNoLeaks()
}

func TestMessageTooLarge(t *testing.T) {
	f := startServer(t, &setup{serve: Options{MaxRequestBytes: 1 << 16}})
	c := pb.NewInferenceClient(f.dial(t))
	_, err := c.ModelInfer(t.Context(), askRequest("", "find w1", string(bytes.Repeat([]byte("a "), 1<<16))))
	requireCode(t, codes.ResourceExhausted, "larger than max", err)
	_, err = c.ModelInfer(t.Context(), textRequest(1))
	require.NoError(t, err)
}

func TestPredictionService(t *testing.T) {
	f := startServer(t, &setup{})
	conn := f.dial(t)
	c, models := pb.NewPredictionClient(conn), pb.NewModelClient(conn)
	spec := &pb.ModelSpec{Name: "bert"}
	ints := func(values []int32, shape ...int64) *tfproto.TensorProto {
		return &tfproto.TensorProto{Dtype: 3, TensorShape: tensor.ShapeProto(shape), IntVal: values}
	}
	request := func() *pb.PredictRequest {
		return &pb.PredictRequest{ModelSpec: spec, Inputs: map[string]*tfproto.TensorProto{
			"input_ids":   ints([]int32{2, 7, 3, 9}, 1, 4),
			"input_mask":  ints([]int32{1}, 1, 4),
			"segment_ids": ints([]int32{0}, 1, 4),
			"unique_ids":  ints([]int32{5}, 1),
		}}
	}
	r, err := c.Predict(t.Context(), request())
	require.NoError(t, err)
	starts, _ := fakemodel.Logits([]int32{2, 7, 3, 9}, 1)
	logits := r.GetOutputs()["start_logits"]
	assert.Equal(t, starts, logits.GetFloatVal())
	assert.Empty(t, logits.GetTensorContent(), "as in TensorFlow Serving")
	assert.Equal(t, []int32{5}, r.GetOutputs()["unique_ids"].GetIntVal())
	assert.EqualValues(t, 1, r.GetModelSpec().GetVersion().GetValue())
	content := request()
	content.Inputs["input_ids"] = &tfproto.TensorProto{
		Dtype: 3, TensorShape: tensor.ShapeProto([]int64{1, 4}), TensorContent: littleEndian(2, 7, 3, 9),
	}
	content.OutputFilter = []string{"start_logits"}
	filtered, err := c.Predict(t.Context(), content)
	require.NoError(t, err)
	assert.Len(t, filtered.GetOutputs(), 1)
	assert.True(t, proto.Equal(logits, filtered.GetOutputs()["start_logits"]))

	for _, tt := range []struct {
		code   codes.Code
		want   string
		change func(*pb.PredictRequest)
	}{
		{codes.NotFound, "Servable not found for request: Latest(x)", func(r *pb.PredictRequest) {
			r.ModelSpec = &pb.ModelSpec{Name: "x"}
		}},
		{codes.NotFound, "Servable not found", func(r *pb.PredictRequest) { r.ModelSpec = nil }},
		{codes.InvalidArgument, "label", func(r *pb.PredictRequest) {
			r.ModelSpec = &pb.ModelSpec{Name: "bert", VersionChoice: &pb.ModelSpec_VersionLabel{VersionLabel: "stable"}}
		}},
		{codes.NotFound, "Specific(bert, 3)", func(r *pb.PredictRequest) {
			r.ModelSpec = &pb.ModelSpec{Name: "bert", VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(3)}}
		}},
		{codes.InvalidArgument, "does not have a signature", func(r *pb.PredictRequest) {
			r.ModelSpec = &pb.ModelSpec{Name: "bert", SignatureName: "x"}
		}},
		{codes.InvalidArgument, "5 inputs: model bert takes 4", func(r *pb.PredictRequest) {
			r.Inputs["x"] = ints([]int32{1}, 1<<20)
		}},
		{codes.InvalidArgument, "which no tensor can have", func(r *pb.PredictRequest) {
			r.Inputs["input_ids"] = ints([]int32{1}, 1<<30, 1<<30)
		}},
		{codes.InvalidArgument, "but 1 elements", func(r *pb.PredictRequest) {
			r.Inputs["input_ids"] = ints([]int32{1}, 1, 1<<21)
		}},
		{codes.InvalidArgument, "which no tensor can have", func(r *pb.PredictRequest) {
			r.Inputs["input_ids"] = ints([]int32{1}, -1)
		}},
		{codes.InvalidArgument, "which no tensor can have", func(r *pb.PredictRequest) {
			r.Inputs["input_ids"].TensorShape.UnknownRank = true
		}},
		{codes.InvalidArgument, "has the type 19", func(r *pb.PredictRequest) { r.Inputs["input_ids"].Dtype = 19 }},
		{codes.InvalidArgument, "is INT64: it must be INT32", func(r *pb.PredictRequest) { r.Inputs["input_ids"].Dtype = 9 }},
		{codes.InvalidArgument, "is BYTES: it must be INT32", func(r *pb.PredictRequest) { r.Inputs["input_ids"].Dtype = 7 }},
		{codes.InvalidArgument, "but 3 elements", func(r *pb.PredictRequest) {
			r.Inputs["input_ids"].IntVal = []int32{1, 2, 3}
		}},
		{codes.InvalidArgument, "is missing", func(r *pb.PredictRequest) { r.Inputs = nil }},
		{codes.InvalidArgument, "has the type 0", func(r *pb.PredictRequest) { r.Inputs["input_ids"] = nil }},
		{codes.InvalidArgument, `does not have an output "x"`, func(r *pb.PredictRequest) { r.OutputFilter = []string{"x"} }},
	} {
		r := request()
		tt.change(r)
		_, err := c.Predict(t.Context(), r)
		requireCode(t, tt.code, tt.want, err)
	}

	text := func(s string) *tfproto.TensorProto {
		return &tfproto.TensorProto{Dtype: 7, TensorShape: tensor.ShapeProto([]int64{1}), StringVal: [][]byte{[]byte(s)}}
	}
	r, err = c.Predict(t.Context(), &pb.PredictRequest{
		ModelSpec: &pb.ModelSpec{Name: "bert_qa"},
		Inputs:    map[string]*tfproto.TensorProto{"QUESTION": text("find w1"), "CONTEXT": text("w1")},
	})
	require.NoError(t, err)
	assert.Equal(t, [][]byte{[]byte("w1")}, r.GetOutputs()["ANSWER"].GetStringVal())

	about, err := c.GetModelMetadata(t.Context(), &pb.GetModelMetadataRequest{
		ModelSpec: spec, MetadataField: []string{"signature_def"},
	})
	require.NoError(t, err)
	var signatures pb.SignatureDefMap
	require.NoError(t, proto.Unmarshal(about.GetMetadata()["signature_def"].GetValue(), &signatures))
	assert.Len(t, signatures.GetSignatureDef()["serving_default"].GetInputs(), 4)
	_, err = c.GetModelMetadata(t.Context(), &pb.GetModelMetadataRequest{ModelSpec: spec})
	requireCode(t, codes.InvalidArgument, "signature_def", err)
	_, err = c.GetModelMetadata(t.Context(), &pb.GetModelMetadataRequest{ModelSpec: spec, MetadataField: []string{"x"}})
	requireCode(t, codes.InvalidArgument, "unknown metadata field", err)
	state, err := models.GetModelStatus(t.Context(), &pb.GetModelStatusRequest{ModelSpec: spec})
	require.NoError(t, err)
	assert.EqualValues(t, 30, state.GetModelVersionStatus()[0].GetState())
	_, err = models.GetModelStatus(t.Context(), &pb.GetModelStatusRequest{})
	requireCode(t, codes.NotFound, "", err)
}

// A small message does not make the server use much memory.
func TestPredictAmplification(t *testing.T) {
	f := startServer(t, &setup{})
	inputs := map[string]*tfproto.TensorProto{}
	for n := range 3000 { // one element each, which stands for a million
		inputs[fmt.Sprint(n)] = &tfproto.TensorProto{
			Dtype: 3, TensorShape: tensor.ShapeProto([]int64{1 << 20}), IntVal: []int32{1},
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := pb.NewPredictionClient(f.dial(t)).Predict(t.Context(), &pb.PredictRequest{
		ModelSpec: &pb.ModelSpec{Name: "bert"}, Inputs: inputs,
	})
	runtime.ReadMemStats(&after)
	requireCode(t, codes.InvalidArgument, "3000 inputs", err)
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d bytes", allocated)
	assert.Less(t, allocated, uint64(256<<20), "bytes, also of the client")
}

func TestUnimplemented(t *testing.T) {
	f := startServer(t, &setup{})
	conn := f.dial(t)
	for _, method := range []string{
		"/inference.GRPCInferenceService/Generate",
		"/inference.GRPCInferenceService/",
		"/tensorflow.serving.PredictionService/Classify",
		"/no.Service/Method",
	} {
		err := conn.Invoke(t.Context(), method, &pb.ServerLiveRequest{}, &pb.ServerLiveResponse{})
		assert.Equal(t, codes.Unimplemented, status.Code(err), "%s: %v", method, err)
	}
}

func TestHealth(t *testing.T) {
	f := startServer(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	c := healthpb.NewHealthClient(f.dial(t))
	for _, service := range []string{
		"", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "bert", "bert_qa",
	} {
		r, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		require.NoError(t, err, service)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, r.GetStatus(), service)
	}
	_, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "other"})
	requireCode(t, codes.NotFound, "unknown service", err)

	watch := func(service string) healthpb.Health_WatchClient {
		w, err := c.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		return w
	}
	requireNext := func(w healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		r, err := w.Recv()
		require.NoError(t, err)
		assert.Equal(t, want, r.GetStatus())
	}
	server, bert, other := watch(""), watch("bert"), watch("other")
	requireNext(server, healthpb.HealthCheckResponse_SERVING)
	requireNext(bert, healthpb.HealthCheckResponse_SERVING)
	requireNext(other, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	require.NoError(t, f.host.Models.Unload("bert"))
	requireNext(bert, healthpb.HealthCheckResponse_NOT_SERVING)
	r, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "bert"})
	require.NoError(t, err)
	assert.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.GetStatus())

	began := time.Now()
	f.stop()
	requireNext(server, healthpb.HealthCheckResponse_NOT_SERVING)
	for _, w := range []healthpb.Health_WatchClient{server, bert, other} {
		_, err := w.Recv()
		requireCode(t, codes.Unavailable, "shutting down", err)
	}
	require.NoError(t, <-f.ended)
	f.ended <- nil
	assert.Less(t, time.Since(began), 5*time.Second, "a client that watches does not delay the shutdown")
}

func TestReflection(t *testing.T) {
	f := startServer(t, &setup{})
	stream, err := reflectionpb.NewServerReflectionClient(f.dial(t)).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		require.NoError(t, stream.Send(r))
		answer, err := stream.Recv()
		require.NoError(t, err)
		return answer
	}
	askFile := func(symbol string) *reflectionpb.ServerReflectionResponse {
		return ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
		})
	}
	list := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	var services []string
	for _, s := range list.GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	for _, want := range []string{
		"inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService",
		"grpc.health.v1.Health",
	} {
		assert.Contains(t, services, want)
		assert.NotEmpty(t, askFile(want).GetFileDescriptorResponse().GetFileDescriptorProto(), want)
	}
	r := askFile("no.Such")
	assert.NotNil(t, r.GetErrorResponse())
	require.NoError(t, stream.CloseSend())
}

func TestAdminTokenOverGRPC(t *testing.T) {
	f := startServer(t, &setup{
		serve: Options{AdminToken: "secret"}, repo: repository.Options{Control: repository.ControlExplicit},
	})
	c := pb.NewInferenceClient(f.dial(t))
	calls := func(ctx context.Context) []error {
		_, a := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
		_, b := c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "bert"})
		_, d := c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "bert"})
		return []error{a, b, d}
	}
	for _, token := range []string{"", "Bearer wrong", "secret"} {
		for _, err := range calls(metadata.AppendToOutgoingContext(t.Context(), "authorization", token)) {
			requireCode(t, codes.Unauthenticated, "admin token", err)
		}
	}
	for _, err := range calls(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer secret")) {
		require.NoError(t, err)
	}
	_, err := c.ModelInfer(t.Context(), textRequest(1))
	require.NoError(t, err)
}

// The limit on a request's time holds over gRPC too, and for each request of a stream.
func TestRequestTimeout(t *testing.T) {
	f := startServer(t, &setup{
		serve: Options{RequestTimeout: 50 * time.Millisecond}, models: fakemodel.Models{Delay: time.Minute},
	})
	c := pb.NewInferenceClient(f.dial(t))
	_, err := c.ModelInfer(t.Context(), askRequest("", "find slow", "slow"))
	requireCode(t, codes.DeadlineExceeded, "took longer than it may", err)
	stream, err := c.ModelStreamInfer(t.Context())
	require.NoError(t, err)
	for _, text := range []string{"slow", "w1"} {
		require.NoError(t, stream.Send(askRequest("", "find "+text, text)))
	}
	r, err := stream.Recv()
	require.NoError(t, err)
	assert.Contains(t, r.GetErrorMessage(), "took longer than it may")
	r, err = stream.Recv()
	require.NoError(t, err)
	if r.GetErrorMessage() == "" { // otherwise it waited too long behind the slow one
		assert.Equal(t, "w1", textAnswer(t, r.GetInferResponse()))
	}
	require.NoError(t, stream.CloseSend())
}

// A panic of the server's own is an error of the call in which it happens.
func TestPanicInCall(t *testing.T) {
	f := startServer(t, &setup{})
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	check := m.Backend().CheckLength
	m.Backend().CheckLength = nil
	_, err = pb.NewInferenceClient(f.dial(t)).ModelInfer(t.Context(), tensorRequest(false, 2, 7, 3))
	requireCode(t, codes.Internal, "the server failed to answer: its log says why", err)
	m.Backend().CheckLength = check
	m.Release()
	assert.Contains(t, f.log.String(), "servable.go")
}
