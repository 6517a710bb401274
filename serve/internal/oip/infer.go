package oip

import (
	"context"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/repository"
)

// ModelInfer runs tensors.
func (s *Service) ModelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	response, result, err := s.infer(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	response.Parameters = map[string]*pb.InferParameter{ // as Server-Timing has it over HTTP
		"queue_us": microseconds(result.Seconds.Queue), "compute_us": microseconds(result.Seconds.Compute),
	}
	for i := range result.Outputs {
		response.RawOutputContents = append(response.RawOutputContents, tensor.AppendBinary(nil, &result.Outputs[i]))
	}
	return response, nil
}

// infer runs tensors, of which some may have been read already. It returns a response without contents, and the outputs
// in the response's order, for the transport to write: gRPC as bytes, HTTP each as the request asks for it.
func (s *Service) infer(
	ctx context.Context, r *pb.ModelInferRequest, read map[int]repository.Tensor,
) (*pb.ModelInferResponse, *repository.Result, error) {
	m, err := s.host.Acquire(r.GetModelName(), r.GetModelVersion())
	if err != nil {
		return nil, nil, err
	}
	defer m.Release()
	x, read, err := s.attach(ctx, r, read)
	if err != nil {
		return nil, nil, err
	}
	if x != nil {
		defer x.release()
	}
	call, err := newCall(m, r, read)
	if err != nil {
		return nil, nil, err
	}
	result, err := m.Infer(ctx, call)
	if err != nil {
		return nil, nil, err
	}
	response := &pb.ModelInferResponse{
		ModelName: m.Name(), ModelVersion: strconv.FormatInt(m.Version(), 10), Id: r.GetId(),
	}
	outputs := make([]repository.Tensor, len(call.Outputs))
	for i, name := range call.Outputs {
		at := slices.IndexFunc(result.Outputs, func(t repository.Tensor) bool { return t.Name == name })
		outputs[i] = result.Outputs[at]
		response.Outputs = append(response.Outputs, &pb.ModelInferResponse_InferOutputTensor{
			Name: name, Datatype: outputs[i].Type, Shape: configuredShape(m.Config(), &outputs[i]),
		})
	}
	result.Outputs = outputs
	return response, result, x.write(r, response, outputs)
}

// configuredShape returns a tensor's shape as the configuration has it. A number for each row is a column
// there, and a vector in the graph's own signature.
func configuredShape(c *repository.Config, t *repository.Tensor) []int64 {
	for _, info := range c.Outputs {
		if info.Name == t.Name && len(t.Shape) == 1 && len(info.Shape) == 2 {
			return []int64{t.Shape[0], 1}
		}
	}
	return t.Shape
}

func microseconds(seconds float64) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(1e6 * seconds)}}
}

// newCall returns a request as a Call. Tensors that have not been read are either in raw_input_contents or in the
// inputs' contents.
func newCall(
	m *repository.Servable, r *pb.ModelInferRequest, read map[int]repository.Tensor,
) (*repository.Call, error) {
	call := &repository.Call{CheckBatchSize: true}
	call.Priority, call.Timeout = queueOf(integer(r.GetParameters()["priority"]), integer(r.GetParameters()["timeout"]))
	if err := checkExtensions(r); err != nil {
		return nil, err
	}
	raw := r.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(r.GetInputs()) {
		return nil, repository.Invalidf("the request has %d raw_input_contents for %d inputs", len(raw), len(r.GetInputs()))
	}
	for i, in := range r.GetInputs() {
		t := repository.Tensor{Name: in.GetName(), Type: in.GetDatatype(), Shape: in.GetShape()}
		known, ok := read[i]
		switch {
		case ok:
			t.Int32s, t.Strings = known.Int32s, known.Strings
		case len(raw) > 0 && in.GetContents() != nil:
			return nil, repository.Invalidf("input %q has contents beside the request's raw_input_contents", in.GetName())
		case len(raw) > 0:
			if err := tensor.ReadBinary(&t, raw[i]); err != nil {
				return nil, err
			}
		case t.Type == repository.Int32:
			t.Int32s = in.GetContents().GetIntContents()
		case t.Type == repository.Int64:
			if err := tensor.SetInt64s(&t, in.GetContents().GetInt64Contents()); err != nil {
				return nil, err
			}
		case t.Type == repository.Bytes:
			for _, b := range in.GetContents().GetBytesContents() {
				t.Strings = append(t.Strings, string(b))
			}
		}
		call.Inputs = append(call.Inputs, t)
	}
	for _, out := range r.GetOutputs() {
		call.Outputs = append(call.Outputs, out.GetName())
	}
	if len(call.Outputs) == 0 { // those of the configuration, which may leave out some of the model's
		for _, out := range m.Config().Outputs {
			call.Outputs = append(call.Outputs, out.Name)
		}
	}
	return call, nil
}

// checkExtensions returns an error if a request uses an extension that the server does not have.
func checkExtensions(r *pb.ModelInferRequest) error {
	for _, out := range r.GetOutputs() {
		if out.GetParameters()[classification] != nil {
			return repository.Errorf(codes.Unimplemented, "classification is not supported: take the logits")
		}
	}
	return nil
}

const classification = "classification"

// integer returns the value of a parameter that is a signed or unsigned number.
func integer(p *pb.InferParameter) int64 {
	if n := p.GetUint64Param(); n > 0 {
		return int64(min(n, 1<<62))
	}
	return p.GetInt64Param()
}

// queueOf returns the priority and the time to wait of a request's parameters, in microseconds.
func queueOf(priority, timeout int64) (int, time.Duration) {
	return int(max(-1, min(priority, 1<<20))), time.Duration(max(0, min(timeout, 1<<40))) * time.Microsecond
}
