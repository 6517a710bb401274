// Package oip implements the Open Inference Protocol of Triton and KServe, with Triton's extensions for
// binary tensors, configuration, statistics and the model repository. A Service has one method for each
// verb, which takes and returns the protocol's own messages. gRPC calls it directly; HTTP decodes, calls
// it and encodes.
package oip

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// serverName is the name of the server in its metadata.
const serverName = "tfbert"

var extensions = []string{
	"model_repository", "model_repository(unload_dependents)", "model_configuration", "binary_tensor_data",
	"statistics", "parameters", "trace", "logging",
}

// A Service is the protocol's inference.GRPCInferenceService.
type Service struct {
	pb.UnimplementedGRPCInferenceServiceServer
	host *transport.Host
}

// New returns the service of a server.
func New(host *transport.Host) *Service { return &Service{host: host} }

// Register adds the service to a gRPC server.
func (s *Service) Register(rpc grpc.ServiceRegistrar) { pb.RegisterInference(rpc, s) }

// ServerLive reports that the server is alive.
func (s *Service) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

// ServerReady reports whether the server can answer.
func (s *Service) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: s.host.Ready() == nil}, nil
}

// ModelReady reports whether a model can answer.
func (s *Service) ModelReady(_ context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	err := s.modelReady(r.GetName(), r.GetVersion())
	if err != nil && repository.AsError(err).Code == codes.InvalidArgument {
		return nil, err
	}
	return &pb.ModelReadyResponse{Ready: err == nil}, nil
}

func (s *Service) modelReady(name, version string) error {
	m, err := s.host.Acquire(name, version)
	if err != nil {
		return err
	}
	m.Release()
	return nil
}

// ServerMetadata describes the server.
func (s *Service) ServerMetadata(
	context.Context, *pb.ServerMetadataRequest,
) (*pb.ServerMetadataResponse, error) {
	list := extensions
	if s.host.SharedMemory != nil {
		list = append(slices.Clip(list), "system_shared_memory")
	}
	return &pb.ServerMetadataResponse{Name: serverName, Version: s.host.Version, Extensions: list}, nil
}

// ModelMetadata describes a model's tensors.
func (s *Service) ModelMetadata(_ context.Context, r *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, err := s.host.Acquire(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	config := m.Config()
	return &pb.ModelMetadataResponse{
		Name: m.Name(), Versions: s.versions(m.Name()), Platform: config.Platform,
		Inputs: tensorMetadata(config.Inputs), Outputs: tensorMetadata(config.Outputs),
	}, nil
}

func tensorMetadata(infos []repository.TensorInfo) (list []*pb.ModelMetadataResponse_TensorMetadata) {
	for _, t := range infos {
		list = append(list, &pb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Type, Shape: t.Shape})
	}
	return list
}

// versions lists the available versions of a model, ascending.
func (s *Service) versions(name string) (list []string) {
	for _, v := range s.host.Models.Versions(name) {
		if v.State == repository.Available {
			list = append(list, strconv.FormatInt(v.Version, 10))
		}
	}
	slices.Reverse(list)
	return list
}

// ModelConfig returns a model's configuration.
func (s *Service) ModelConfig(_ context.Context, r *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	m, err := s.host.Acquire(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	text, err := m.Config().Marshal()
	if err != nil {
		return nil, err
	}
	config := &pb.ModelConfig{}
	if err := proto.Unmarshal(text, config); err != nil {
		return nil, err
	}
	return &pb.ModelConfigResponse{Config: config}, nil
}

// ModelStatistics returns the counts of a version of a model, of all its versions if the request does not name one,
// or of all models.
func (s *Service) ModelStatistics(
	_ context.Context, r *pb.ModelStatisticsRequest,
) (*pb.ModelStatisticsResponse, error) {
	response := &pb.ModelStatisticsResponse{}
	if r.GetName() != "" { // it must be available
		m, err := s.host.Acquire(r.GetName(), r.GetVersion())
		if err != nil {
			return nil, err
		}
		m.Release()
	}
	for _, m := range s.host.Models.Models() {
		for _, servable := range m.Servables() {
			named := servable.Name() == r.GetName() &&
				(r.GetVersion() == "" || strconv.FormatInt(m.Version(), 10) == r.GetVersion())
			if r.GetName() == "" || named {
				response.ModelStats = append(response.ModelStats, statistics(servable))
			}
		}
		m.Release()
	}
	return response, nil
}

func statistics(m *repository.Servable) *pb.ModelStatistics {
	t := m.Statistics()
	stats := &pb.ModelStatistics{
		Name: m.Name(), Version: strconv.FormatInt(m.Version(), 10),
		InferenceCount: uint64(t.Rows), ExecutionCount: uint64(t.Executions()),
		InferenceStats: &pb.InferStatistics{
			Success: duration(t.Success), Fail: duration(t.Fail), Queue: duration(t.Queue),
			ComputeInput: duration(t.Input), ComputeInfer: duration(t.Compute), ComputeOutput: duration(t.Outputs),
			CacheHit: duration(t.CacheHit), CacheMiss: duration(t.CacheMiss),
		},
	}
	if !t.Last.IsZero() {
		stats.LastInference = uint64(t.Last.UnixMilli())
	}
	for _, size := range slices.Sorted(maps.Keys(t.Batches)) {
		stats.BatchStats = append(stats.BatchStats, &pb.InferBatchStatistics{
			BatchSize: uint64(size), ComputeInfer: duration(t.Batches[size]),
			ComputeInput: &pb.StatisticDuration{}, ComputeOutput: &pb.StatisticDuration{},
		})
	}
	if n := m.Backend().Bytes; n > 0 {
		stats.MemoryUsage = []*pb.MemoryUsage{{Type: "CPU", ByteSize: uint64(n)}}
	}
	return stats
}

func duration(t repository.Total) *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: uint64(t.Count), Ns: uint64(t.Time.Nanoseconds())}
}

// states are the repository's in Triton's terms.
var states = map[repository.State]string{
	repository.Available: "READY", repository.Loading: "LOADING",
	repository.Failed: "UNAVAILABLE", repository.Unloaded: "UNAVAILABLE",
}

// RepositoryIndex lists the versions of all models.
func (s *Service) RepositoryIndex(
	ctx context.Context, r *pb.RepositoryIndexRequest,
) (*pb.RepositoryIndexResponse, error) {
	if err := s.admin(ctx); err != nil {
		return nil, err
	}
	list, err := s.host.Models.Index()
	if err != nil {
		return nil, err
	}
	response := &pb.RepositoryIndexResponse{}
	for _, status := range list {
		if r.GetReady() && status.State != repository.Available {
			continue
		}
		entry := &pb.RepositoryIndexResponse_ModelIndex{
			Name: status.Name, State: states[status.State], Reason: status.Reason,
		}
		if status.Version > 0 {
			entry.Version = strconv.FormatInt(status.Version, 10)
		}
		response.Models = append(response.Models, entry)
	}
	return response, nil
}

// RepositoryModelLoad loads a model from the repository's files.
func (s *Service) RepositoryModelLoad(
	ctx context.Context, r *pb.RepositoryModelLoadRequest,
) (*pb.RepositoryModelLoadResponse, error) {
	if err := s.admin(ctx); err != nil {
		return nil, err
	}
	config, err := overrideOf(r)
	if err != nil {
		return nil, err
	}
	if config != nil {
		return &pb.RepositoryModelLoadResponse{}, s.host.Models.LoadConfig(ctx, r.GetModelName(), config)
	}
	return &pb.RepositoryModelLoadResponse{}, s.host.Models.Load(ctx, r.GetModelName())
}

// RepositoryModelUnload unloads a model.
func (s *Service) RepositoryModelUnload(
	ctx context.Context, r *pb.RepositoryModelUnloadRequest,
) (*pb.RepositoryModelUnloadResponse, error) {
	if err := s.admin(ctx); err != nil {
		return nil, err
	}
	return &pb.RepositoryModelUnloadResponse{}, s.host.Models.Unload(r.GetModelName())
}

// admin returns an error unless the call may change the server.
func (s *Service) admin(ctx context.Context) error { return s.host.AdminCall(ctx) }
