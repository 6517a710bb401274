package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

// inferenceServer is the Open Inference Protocol over gRPC, with Triton's extensions.
type inferenceServer struct {
	pb.UnimplementedGRPCInferenceServiceServer
	server *Server
}

func (i *inferenceServer) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

func (i *inferenceServer) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: i.server.ready() == nil}, nil
}

func (i *inferenceServer) ModelReady(_ context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	m, err := i.server.acquire(named(r.GetName()), r.GetVersion())
	if err != nil {
		if repository.AsError(err).Code == codes.InvalidArgument {
			return nil, err
		}
		return &pb.ModelReadyResponse{}, nil // not ready is an answer
	}
	m.Release()
	return &pb.ModelReadyResponse{Ready: true}, nil
}

// named keeps a name that is left out from being that of the only model, as it is for questions.
func named(name string) string {
	if name == "" {
		return " "
	}
	return name
}

func (i *inferenceServer) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: serverName, Version: i.server.opts.Version, Extensions: extensions}, nil
}

func (i *inferenceServer) ModelMetadata(_ context.Context, r *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, err := i.server.acquire(named(r.GetName()), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	response := &pb.ModelMetadataResponse{Name: m.Name(), Versions: i.server.versions(m.Name()), Platform: m.Config().GetPlatform()}
	inputs, outputs := tensorMetadatas(m)
	for _, t := range inputs {
		response.Inputs = append(response.Inputs, &pb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
	}
	for _, t := range outputs {
		response.Outputs = append(response.Outputs, &pb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
	}
	return response, nil
}

func (i *inferenceServer) ModelConfig(_ context.Context, r *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	m, err := i.server.acquire(named(r.GetName()), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	return &pb.ModelConfigResponse{Config: m.Config()}, nil
}

func (i *inferenceServer) ModelStatistics(_ context.Context, r *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	list, release, err := i.server.statisticsOf(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer release()
	response := &pb.ModelStatisticsResponse{}
	for _, m := range list {
		t := m.Statistics().Snapshot()
		stats := &pb.ModelStatistics{
			Name: m.Name(), Version: strconv.FormatInt(m.Version(), 10),
			InferenceCount: uint64(t.Rows), ExecutionCount: uint64(t.Executions()),
			InferenceStats: &pb.InferStatistics{
				Success: statisticDuration(t.Success), Fail: statisticDuration(t.Fail), Queue: statisticDuration(t.Queue),
				ComputeInput: statisticDuration(t.Input), ComputeInfer: statisticDuration(t.Compute), ComputeOutput: statisticDuration(t.Outputs),
				CacheHit: &pb.StatisticDuration{}, CacheMiss: &pb.StatisticDuration{},
			},
		}
		if !t.Last.IsZero() {
			stats.LastInference = uint64(t.Last.UnixMilli())
		}
		for _, size := range t.Sizes() {
			stats.BatchStats = append(stats.BatchStats, &pb.InferBatchStatistics{
				BatchSize: uint64(size), ComputeInput: &pb.StatisticDuration{}, ComputeInfer: statisticDuration(t.Batches[size]), ComputeOutput: &pb.StatisticDuration{},
			})
		}
		response.ModelStats = append(response.ModelStats, stats)
	}
	return response, nil
}

func statisticDuration(t repository.Total) *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: uint64(t.Count), Ns: uint64(t.Time.Nanoseconds())}
}

func (i *inferenceServer) RepositoryIndex(ctx context.Context, r *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if err := i.server.admin(authorization(ctx)); err != nil {
		return nil, err
	}
	entries, err := i.server.index(r.GetReady())
	if err != nil {
		return nil, err
	}
	response := &pb.RepositoryIndexResponse{}
	for _, e := range entries {
		response.Models = append(response.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: e.State, Reason: e.Reason})
	}
	return response, nil
}

func (i *inferenceServer) RepositoryModelLoad(ctx context.Context, r *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	if err := i.server.admin(authorization(ctx)); err != nil {
		return nil, err
	}
	if len(r.GetParameters()) > 0 {
		return nil, errNoOverrides
	}
	return &pb.RepositoryModelLoadResponse{}, i.server.models.Load(ctx, r.GetModelName())
}

func (i *inferenceServer) RepositoryModelUnload(ctx context.Context, r *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	if err := i.server.admin(authorization(ctx)); err != nil {
		return nil, err
	}
	return &pb.RepositoryModelUnloadResponse{}, i.server.models.Unload(r.GetModelName())
}

func (i *inferenceServer) ModelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	m, err := i.server.acquire(named(r.GetModelName()), r.GetModelVersion())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	call, err := inferCall(m, r)
	if err != nil {
		return nil, err
	}
	result, err := m.Infer(ctx, call)
	if err != nil {
		return nil, err
	}
	response := &pb.ModelInferResponse{ModelName: m.Name(), ModelVersion: strconv.FormatInt(m.Version(), 10), Id: r.GetId()}
	response.Parameters = map[string]*pb.InferParameter{
		"queue_us": microseconds(result.Seconds.Queue), "compute_us": microseconds(result.Seconds.Compute),
	}
	for _, name := range call.Outputs {
		at := slices.IndexFunc(result.Outputs, func(t repository.Tensor) bool { return t.Name == name })
		t := &result.Outputs[at]
		response.Outputs = append(response.Outputs, &pb.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: t.Type, Shape: configuredShape(m, *t)})
		response.RawOutputContents = append(response.RawOutputContents, appendBinary(nil, t))
	}
	return response, nil
}

// microseconds tells a client of a time as Server-Timing does over HTTP.
func microseconds(seconds float64) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(1e6 * seconds)}}
}

// inferCall puts a request in the repository's terms. Its tensors are in raw_input_contents or in the
// inputs' contents, not in both.
func inferCall(m repository.Handle, r *pb.ModelInferRequest) (*repository.Call, error) {
	call := &repository.Call{MaxBatch: true}
	for name, p := range r.GetParameters() {
		switch name {
		case "priority":
			call.Priority = int(max(0, min(integer(p), 1<<20)))
		case "timeout": // microseconds
			call.Timeout = time.Duration(max(0, min(integer(p), 1<<40))) * time.Microsecond
		}
	}
	raw := r.GetRawInputContents()
	for _, in := range r.GetInputs() { // first, for such an input has no contents
		if in.GetParameters()["shared_memory_region"] != nil {
			return nil, repository.Errorf(codes.Unimplemented, "shared memory is not supported: send the tensors")
		}
	}
	if len(raw) > 0 && len(raw) != len(r.GetInputs()) {
		return nil, repository.Errorf(codes.InvalidArgument, "the request has %d raw_input_contents for %d inputs", len(raw), len(r.GetInputs()))
	}
	for n, in := range r.GetInputs() {
		t := repository.Tensor{Name: in.GetName(), Type: in.GetDatatype(), Shape: in.GetShape()}
		if len(raw) > 0 {
			if in.GetContents() != nil {
				return nil, repository.Errorf(codes.InvalidArgument, "input %q has contents beside the request's raw_input_contents", in.GetName())
			}
			if err := readBinary(&t, raw[n]); err != nil {
				return nil, err
			}
		} else {
			switch t.Type {
			case repository.Int32:
				t.Int32s = in.GetContents().GetIntContents()
			case repository.Bytes:
				for _, b := range in.GetContents().GetBytesContents() {
					t.Strings = append(t.Strings, string(b))
				}
			}
		}
		call.Inputs = append(call.Inputs, t)
	}
	for _, out := range r.GetOutputs() {
		if out.GetParameters()["shared_memory_region"] != nil {
			return nil, repository.Errorf(codes.Unimplemented, "shared memory is not supported: take the tensors")
		}
		if out.GetParameters()["classification"] != nil {
			return nil, repository.Errorf(codes.Unimplemented, "classification is not supported: take the logits")
		}
		call.Outputs = append(call.Outputs, out.GetName())
	}
	if len(call.Outputs) == 0 {
		call.Outputs = configuredOutputs(m)
	}
	return call, nil
}

// integer reads a parameter that is a number in one of the types that there are for it.
func integer(p *pb.InferParameter) int64 {
	if n := p.GetUint64Param(); n > 0 {
		return int64(min(n, 1<<62))
	}
	return p.GetInt64Param()
}

// ModelStreamInfer answers the requests of a stream in their order. Some run at once: a client that
// sends many without waiting is not kept to one at a time.
func (i *inferenceServer) ModelStreamInfer(stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	pending := make(chan chan *pb.ModelStreamInferResponse, 32)
	received := make(chan error, 1)
	go func() {
		defer close(pending)
		for {
			r, err := stream.Recv()
			if err == nil && i.server.draining.Err() != nil {
				err = errDraining
			}
			if err != nil {
				received <- err
				return
			}
			answer := make(chan *pb.ModelStreamInferResponse, 1)
			select {
			case pending <- answer:
			case <-ctx.Done():
				received <- ctx.Err()
				return
			}
			go func() { answer <- i.streamed(ctx, r) }()
		}
	}()
	for {
		var answer chan *pb.ModelStreamInferResponse
		ok := true
		select {
		case answer, ok = <-pending:
		default:
			select {
			case answer, ok = <-pending:
			case <-i.server.draining.Done():
				return errDraining // a client that sends nothing would keep the server from ending
			}
		}
		if !ok {
			break
		}
		if err := stream.Send(<-answer); err != nil {
			return err
		}
	}
	if err := <-received; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// streamed answers one request of a stream, which an error does not end.
func (i *inferenceServer) streamed(ctx context.Context, r *pb.ModelInferRequest) *pb.ModelStreamInferResponse {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, i.server.opts.RequestTimeout)
	defer cancel()
	var response *pb.ModelInferResponse
	err := recovering(func() (err error) {
		response, err = i.ModelInfer(ctx, r)
		return err
	})
	if err != nil {
		i.server.logRequest(ctx, "gRPC", "/inference.GRPCInferenceService/ModelStreamInfer", "one of a stream", began, err)
		return &pb.ModelStreamInferResponse{
			ErrorMessage:  repository.AsError(err).Message,
			InferResponse: &pb.ModelInferResponse{ModelName: r.GetModelName(), ModelVersion: r.GetModelVersion(), Id: r.GetId()},
		}
	}
	return &pb.ModelStreamInferResponse{InferResponse: response}
}
