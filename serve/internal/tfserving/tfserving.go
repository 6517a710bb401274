// Package tfserving implements TensorFlow Serving's protocol. A Service has one method for each verb, which
// takes and returns the protocol's own messages. gRPC calls it directly; REST decodes, calls it and encodes.
package tfserving

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

const (
	defaultSignature = "serving_default"
	predictMethod    = "tensorflow/serving/predict"
)

// A Service is the protocol's tensorflow.serving.PredictionService and tensorflow.serving.ModelService. It
// does not have the verbs that take tf.Example, which a question-answering model does not take.
type Service struct {
	pb.UnimplementedPredictionServiceServer
	pb.UnimplementedModelServiceServer
	host *transport.Host
}

// New returns the service of a server.
func New(host *transport.Host) *Service { return &Service{host: host} }

// Register adds the service to a gRPC server.
func (s *Service) Register(rpc grpc.ServiceRegistrar) {
	pb.RegisterPrediction(rpc, s)
	pb.RegisterModelService(rpc, s)
}

// acquire returns the model of a spec.
func (s *Service) acquire(spec *pb.ModelSpec) (*repository.Servable, error) {
	name := spec.GetName()
	version := spec.GetVersion()
	if version != nil && version.GetValue() < 1 {
		return nil, transport.InvalidVersion(strconv.FormatInt(version.GetValue(), 10))
	}
	var m *repository.Servable
	var err error
	if label := spec.GetVersionLabel(); label != "" {
		m, err = s.host.Models.AcquireLabel(name, label)
	} else {
		m, err = s.host.Models.Acquire(name, version.GetValue())
	}
	if err != nil {
		if repository.AsError(err).Code != codes.NotFound {
			return nil, err
		}
		servable := fmt.Sprintf("Latest(%s)", name)
		if version != nil {
			servable = fmt.Sprintf("Specific(%s, %d)", name, version.GetValue())
		}
		return nil, repository.Errorf(codes.NotFound, "Servable not found for request: %s", servable)
	}
	if signature := spec.GetSignatureName(); signature != "" && signature != defaultSignature {
		m.Release()
		return nil, repository.Invalidf("model %s does not have a signature %q: it has %q",
			m.Name(), signature, defaultSignature)
	}
	return m, nil
}

func modelSpec(m *repository.Servable, signature string) *pb.ModelSpec {
	return &pb.ModelSpec{
		Name: m.Name(), SignatureName: signature,
		VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(m.Version())},
	}
}

// Predict runs tensors.
func (s *Service) Predict(ctx context.Context, r *pb.PredictRequest) (*pb.PredictResponse, error) {
	spec, result, err := s.infer(ctx, r)
	if err != nil {
		return nil, err
	}
	response := &pb.PredictResponse{ModelSpec: spec, Outputs: map[string]*tfproto.TensorProto{}}
	for i := range result.Outputs {
		response.Outputs[result.Outputs[i].Name] = tensor.ToProto(&result.Outputs[i])
	}
	return response, nil
}

// infer runs tensors. It returns the model that ran them, and the outputs for the transport to write.
func (s *Service) infer(ctx context.Context, r *pb.PredictRequest) (*pb.ModelSpec, *repository.Result, error) {
	m, err := s.acquire(r.GetModelSpec())
	if err != nil {
		return nil, nil, err
	}
	defer m.Release()
	call, err := newCall(m, r)
	if err != nil {
		return nil, nil, err
	}
	result, err := m.Infer(ctx, call)
	return modelSpec(m, defaultSignature), result, err
}

func newCall(m *repository.Servable, r *pb.PredictRequest) (*repository.Call, error) {
	// Before any is read, because one element may stand for a million.
	if n := len(m.Inputs()); len(r.GetInputs()) > n {
		return nil, repository.Invalidf("the request has %d inputs: model %s takes %d", len(r.GetInputs()), m.Name(), n)
	}
	call := &repository.Call{Outputs: r.GetOutputFilter()}
	for name, p := range r.GetInputs() {
		t, err := tensor.FromProto(name, p)
		if err != nil {
			return nil, err
		}
		call.Inputs = append(call.Inputs, t)
	}
	return call, nil
}

// GetModelMetadata returns a model's signature.
func (s *Service) GetModelMetadata(
	_ context.Context, r *pb.GetModelMetadataRequest,
) (*pb.GetModelMetadataResponse, error) {
	for _, field := range r.GetMetadataField() {
		if field != "signature_def" {
			return nil, repository.Invalidf("unknown metadata field %q: ask for signature_def", field)
		}
	}
	if len(r.GetMetadataField()) == 0 {
		return nil, repository.Invalidf("the request does not name a metadata field: ask for signature_def")
	}
	m, err := s.acquire(r.GetModelSpec())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	text, err := proto.Marshal(signatures(m))
	if err != nil {
		return nil, err
	}
	return &pb.GetModelMetadataResponse{ModelSpec: modelSpec(m, ""), Metadata: map[string]*anypb.Any{
		"signature_def": {TypeUrl: "type.googleapis.com/tensorflow.serving.SignatureDefMap", Value: text},
	}}, nil
}

func signatures(m *repository.Servable) *pb.SignatureDefMap {
	tensors := func(infos []repository.TensorInfo) map[string]*tfproto.TensorInfo {
		list := map[string]*tfproto.TensorInfo{}
		for _, info := range infos {
			list[info.Name] = &tfproto.TensorInfo{
				Encoding: &tfproto.TensorInfo_Name{Name: info.TensorName},
				Dtype:    tensor.DType(info.Type), TensorShape: tensor.ShapeProto(info.Shape),
			}
		}
		return list
	}
	return &pb.SignatureDefMap{SignatureDef: map[string]*tfproto.SignatureDef{
		defaultSignature: {Inputs: tensors(m.Inputs()), Outputs: tensors(m.Outputs()), MethodName: predictMethod},
	}}
}

// states are the repository's in TensorFlow Serving's terms.
var states = map[repository.State]pb.ModelVersionStatus_State{
	repository.Loading: pb.ModelVersionStatus_LOADING, repository.Available: pb.ModelVersionStatus_AVAILABLE,
	repository.Failed: pb.ModelVersionStatus_END, repository.Unloaded: pb.ModelVersionStatus_END,
}

// GetModelStatus returns the states of all versions of a model, or of one.
func (s *Service) GetModelStatus(
	_ context.Context, r *pb.GetModelStatusRequest,
) (*pb.GetModelStatusResponse, error) {
	name, version := r.GetModelSpec().GetName(), r.GetModelSpec().GetVersion().GetValue()
	if label := r.GetModelSpec().GetVersionLabel(); label != "" {
		var err error
		if version, err = s.host.Models.Label(name, label); err != nil {
			return nil, err
		}
	}
	list := slices.DeleteFunc(s.host.Models.Versions(name), func(v repository.Status) bool {
		return version != 0 && v.Version != version
	})
	if len(list) == 0 {
		return nil, repository.Errorf(codes.NotFound, "Could not find any versions of model %s", name)
	}
	response := &pb.GetModelStatusResponse{}
	for _, v := range list {
		status := &pb.StatusProto{}
		if v.Reason != "" && v.State != repository.Available {
			status.ErrorCode, status.ErrorMessage = int32(codes.Unknown), v.Reason
		}
		response.ModelVersionStatus = append(response.ModelVersionStatus, &pb.ModelVersionStatus{
			Version: v.Version, State: states[v.State], Status: status,
		})
	}
	return response, nil
}

// parseVersion returns the version of a path; nil is the newest.
func parseVersion(s string) (*wrapperspb.Int64Value, error) {
	if s == "" {
		return nil, nil
	}
	version, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, transport.InvalidVersion(s)
	}
	return wrapperspb.Int64(version), nil
}
