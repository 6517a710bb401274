package serve

import (
	"context"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/repository"
)

// predictionServer is TensorFlow Serving's PredictionService. Classify, Regress and MultiInference take
// tf.Example, which a question-answering model does not: they are unimplemented.
type predictionServer struct {
	pb.UnimplementedPredictionServiceServer
	server *Server
}

// modelServer is TensorFlow Serving's ModelService.
type modelServer struct {
	pb.UnimplementedModelServiceServer
	server *Server
}

// specified finds the model of a spec.
func (s *Server) specified(spec *pb.ModelSpec) (repository.Handle, error) {
	version := ""
	if v := spec.GetVersion(); v != nil {
		version = strconv.FormatInt(v.GetValue(), 10)
	}
	m, err := s.servable(named(spec.GetName()), version, spec.GetVersionLabel())
	if err != nil {
		return m, err
	}
	if err := checkSignature(m, spec.GetSignatureName()); err != nil {
		m.Release()
		return m, err
	}
	return m, nil
}

func modelSpec(m repository.Handle, signature string) *pb.ModelSpec {
	return &pb.ModelSpec{
		Name: m.Name(), SignatureName: signature,
		VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(m.Version())},
	}
}

// types of tensors in TensorFlow.
var tensorTypes = map[string]int32{repository.Int32: 3, repository.Float32: 1, repository.Bytes: 7}

func (p *predictionServer) Predict(ctx context.Context, r *pb.PredictRequest) (*pb.PredictResponse, error) {
	m, err := p.server.specified(r.GetModelSpec())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	// Before any is read: one element may stand for a million.
	if n := len(m.Inputs()); len(r.GetInputs()) > n {
		return nil, repository.Errorf(codes.InvalidArgument, "the request has %d inputs: model %s takes %d", len(r.GetInputs()), m.Name(), n)
	}
	call := &repository.Call{Outputs: r.GetOutputFilter()}
	for name, t := range r.GetInputs() {
		tensor, err := readTensorProto(name, t)
		if err != nil {
			return nil, err
		}
		call.Inputs = append(call.Inputs, tensor)
	}
	result, err := m.Infer(ctx, call)
	if err != nil {
		return nil, err
	}
	response := &pb.PredictResponse{ModelSpec: modelSpec(m, servingDefault), Outputs: map[string]*tfproto.TensorProto{}}
	outputs := result.Outputs
	for i := range outputs {
		if t := &outputs[i]; m.Text {
			t.Shape = t.Shape[:1]
		}
		response.Outputs[outputs[i].Name] = tensorProto(&outputs[i])
	}
	return response, nil
}

// readTensorProto reads a tensor. Its elements are in tensor_content, or in a list of their type; of
// such a list, one element stands for as many as there are.
func readTensorProto(name string, p *tfproto.TensorProto) (repository.Tensor, error) {
	t := repository.Tensor{Name: name}
	for _, d := range p.GetTensorShape().GetDim() {
		t.Shape = append(t.Shape, d.GetSize())
	}
	n := repository.Elements(t.Shape)
	if p.GetTensorShape().GetUnknownRank() || n < 0 {
		return t, repository.Errorf(codes.InvalidArgument, "input %q has the shape %v, which no tensor can have", name, t.Shape)
	}
	for kind, dtype := range tensorTypes {
		if dtype == p.GetDtype() {
			t.Type = kind
		}
	}
	switch t.Type {
	case repository.Int32:
		if content := p.GetTensorContent(); len(content) > 0 {
			return t, readBinary(&t, content)
		}
		t.Int32s = p.GetIntVal()
		if len(t.Int32s) == 1 && n > 1 && n <= 1<<20 {
			t.Int32s = slices.Repeat(t.Int32s, n)
		}
	case repository.Bytes:
		for _, b := range p.GetStringVal() {
			t.Strings = append(t.Strings, string(b))
		}
	default:
		return t, repository.Errorf(codes.InvalidArgument, "input %q has the type %d: a question-answering model takes none but DT_INT32 and DT_STRING", name, p.GetDtype())
	}
	return t, nil
}

func tensorProto(t *repository.Tensor) *tfproto.TensorProto {
	p := &tfproto.TensorProto{Dtype: tensorTypes[t.Type], TensorShape: shapeProto(t.Shape)}
	switch t.Type {
	case repository.Int32, repository.Float32:
		p.TensorContent = appendBinary(nil, t)
	default:
		for _, x := range t.Strings {
			p.StringVal = append(p.StringVal, []byte(x))
		}
	}
	return p
}

func shapeProto(shape []int64) *tfproto.TensorShapeProto {
	p := &tfproto.TensorShapeProto{}
	for _, d := range shape {
		p.Dim = append(p.Dim, &tfproto.TensorShapeProto_Dim{Size: d})
	}
	return p
}

func (p *predictionServer) GetModelMetadata(_ context.Context, r *pb.GetModelMetadataRequest) (*pb.GetModelMetadataResponse, error) {
	for _, field := range r.GetMetadataField() {
		if field != "signature_def" {
			return nil, repository.Errorf(codes.InvalidArgument, "there is no metadata field %q: ask for signature_def", field)
		}
	}
	if len(r.GetMetadataField()) == 0 {
		return nil, repository.Errorf(codes.InvalidArgument, "no metadata field is named: ask for signature_def")
	}
	m, err := p.server.specified(r.GetModelSpec())
	if err != nil {
		return nil, err
	}
	defer m.Release()
	tensors := func(infos []repository.TensorInfo) map[string]*tfproto.TensorInfo {
		list := map[string]*tfproto.TensorInfo{}
		for _, info := range infos {
			list[info.Name] = &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_Name{Name: info.TensorName}, Dtype: tensorTypes[info.Type], TensorShape: shapeProto(info.Shape)}
		}
		return list
	}
	inputs, outputs := signatureTensors(m)
	text, err := proto.Marshal(&pb.SignatureDefMap{SignatureDef: map[string]*tfproto.SignatureDef{
		servingDefault: {Inputs: tensors(inputs), Outputs: tensors(outputs), MethodName: predictMethod},
	}})
	if err != nil {
		return nil, err
	}
	return &pb.GetModelMetadataResponse{ModelSpec: modelSpec(m, ""), Metadata: map[string]*anypb.Any{
		"signature_def": {TypeUrl: "type.googleapis.com/tensorflow.serving.SignatureDefMap", Value: text},
	}}, nil
}

func (o *modelServer) GetModelStatus(_ context.Context, r *pb.GetModelStatusRequest) (*pb.GetModelStatusResponse, error) {
	spec := r.GetModelSpec()
	if label := spec.GetVersionLabel(); label != "" {
		_, err := o.server.servable(spec.GetName(), "", label)
		return nil, err
	}
	list, err := o.server.statusesOf(spec.GetName(), spec.GetVersion().GetValue())
	if err != nil {
		return nil, err
	}
	response := &pb.GetModelStatusResponse{}
	for _, v := range list {
		status := &pb.StatusProto{}
		if v.Reason != "" && v.State != repository.Available {
			status.ErrorCode, status.ErrorMessage = int32(codes.Unknown), v.Reason
		}
		response.ModelVersionStatus = append(response.ModelVersionStatus, &pb.ModelVersionStatus{
			Version: v.Version, State: pb.ModelVersionStatus_State(v.State), Status: status,
		})
	}
	return response, nil
}
