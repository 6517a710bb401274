package oip

import (
	"context"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// headerLength is the header with the length of the JSON in front of binary tensors.
const headerLength = "Inference-Header-Content-Length"

// Handle adds the verbs over HTTP.
func (s *Service) Handle(handle transport.Handle) {
	handle("GET /v2", verb(s.ServerMetadata, func(*http.Request) *pb.ServerMetadataRequest { return nil }))
	handle("GET /v2/health/live", verb(s.ServerLive, func(*http.Request) *pb.ServerLiveRequest { return nil }))
	handle("GET /v2/health/ready", func(w http.ResponseWriter, r *http.Request) error {
		if err := s.host.Ready(); err != nil {
			return err // over HTTP the status tells it
		}
		return respond(w, &pb.ServerReadyResponse{Ready: true})
	})
	handle("GET /v2/models/stats", s.statistics)
	for _, base := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		handle("GET "+base, verb(s.ModelMetadata, func(r *http.Request) *pb.ModelMetadataRequest {
			return &pb.ModelMetadataRequest{Name: r.PathValue("model"), Version: r.PathValue("version")}
		}))
		handle("GET "+base+"/ready", func(w http.ResponseWriter, r *http.Request) error {
			if err := s.modelReady(r.PathValue("model"), r.PathValue("version")); err != nil {
				return err
			}
			return transport.WriteJSON(w, struct {
				Name  string `json:"name"`
				Ready bool   `json:"ready"`
			}{r.PathValue("model"), true})
		})
		handle("GET "+base+"/config", s.config)
		handle("GET "+base+"/stats", s.statistics)
		handle("POST "+base+"/infer", s.handleInfer)
		handle("POST "+base+"/generate", s.generate)
		handle("POST "+base+"/generate_stream", s.generateStream)
	}
	s.handleSettings(handle)
	s.handleSharedMemory(handle)
	handle("POST /v2/repository/index", s.index)
	handle("POST /v2/repository/models/{model}/load", s.load)
	unload := verb(s.RepositoryModelUnload, func(r *http.Request) *pb.RepositoryModelUnloadRequest {
		return &pb.RepositoryModelUnloadRequest{ModelName: r.PathValue("model")}
	})
	handle("POST /v2/repository/models/{model}/unload", func(w http.ResponseWriter, r *http.Request) error {
		if err := transport.Enter(r); err != nil { // its body is not read
			return err
		}
		return unload(w, r)
	})
}

// verb returns the handler of a method whose request is in the path.
func verb[Request, Response proto.Message](
	method func(context.Context, Request) (Response, error), request func(*http.Request) Request,
) transport.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		response, err := method(incoming(r), request(r))
		if err != nil {
			return err
		}
		return respond(w, response)
	}
}

// incoming returns a request's context, with its Authorization header where gRPC has it.
func incoming(r *http.Request) context.Context {
	return metadata.NewIncomingContext(r.Context(), metadata.Pairs("authorization", r.Header.Get("Authorization")))
}

// respond writes a message with all of its fields.
func respond(w http.ResponseWriter, m proto.Message) error {
	transport.Write(w, "application/json", append(transport.ProtoJSON(m, true), '\n'))
	return nil
}

func (s *Service) config(w http.ResponseWriter, r *http.Request) error {
	response, err := s.ModelConfig(r.Context(), &pb.ModelConfigRequest{
		Name: r.PathValue("model"), Version: r.PathValue("version"),
	})
	if err != nil {
		return err
	}
	return respond(w, response.GetConfig()) // over HTTP the configuration itself is the response
}

func (s *Service) statistics(w http.ResponseWriter, r *http.Request) error {
	response, err := s.ModelStatistics(r.Context(), &pb.ModelStatisticsRequest{
		Name: r.PathValue("model"), Version: r.PathValue("version"),
	})
	if err != nil {
		return err
	}
	return respond(w, response)
}

// readOptional reads a body that may be empty.
func (s *Service) readOptional(r *http.Request, v any) error {
	body, err := s.host.ReadBody(r)
	if err != nil || len(body) == 0 {
		return err
	}
	return transport.DecodeJSON(body, v)
}

func (s *Service) index(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Ready bool `json:"ready"`
	}
	if err := s.host.Admin(r.Header.Get("Authorization")); err != nil { // before the body is read
		return err
	}
	if err := s.readOptional(r, &request); err != nil {
		return err
	}
	response, err := s.RepositoryIndex(incoming(r), &pb.RepositoryIndexRequest{Ready: request.Ready})
	if err != nil {
		return err
	}
	list := []jsontext.Value{} // over HTTP the response is the list, without empty fields
	for _, m := range response.GetModels() {
		list = append(list, transport.ProtoJSON(m, false))
	}
	return transport.WriteJSON(w, list)
}

func (s *Service) load(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Parameters map[string]jsontext.Value `json:"parameters"`
	}
	if err := s.host.Admin(r.Header.Get("Authorization")); err != nil {
		return err
	}
	if err := s.readOptional(r, &request); err != nil {
		return err
	}
	message := &pb.RepositoryModelLoadRequest{ModelName: r.PathValue("model")}
	message.Parameters = map[string]*pb.ModelRepositoryParameter{}
	for name, value := range request.Parameters {
		message.Parameters[name] = loadParameter(value)
	}
	response, err := s.RepositoryModelLoad(incoming(r), message)
	if err != nil {
		return err
	}
	return respond(w, response)
}

// inferJSON is an inference request.
type inferJSON struct {
	ID         string                             `json:"id"`
	Parameters parametersJSON                     `json:"parameters"`
	Inputs     transport.Bounded[inferInputJSON]  `json:"inputs"`
	Outputs    transport.Bounded[inferOutputJSON] `json:"outputs"`
}

type inferInputJSON struct {
	Name       string                   `json:"name"`
	Datatype   string                   `json:"datatype"`
	Shape      transport.Bounded[int64] `json:"shape"`
	Parameters parametersJSON           `json:"parameters"`
	Data       jsontext.Value           `json:"data"`
}

type inferOutputJSON struct {
	Name       string         `json:"name"`
	Parameters parametersJSON `json:"parameters"`
}

// parametersJSON are the parameters of a request, an input or an output that the server knows.
type parametersJSON struct {
	BinaryDataSize   *int    `json:"binary_data_size"`
	BinaryDataOutput bool    `json:"binary_data_output"`
	BinaryData       *bool   `json:"binary_data"`
	Classification   int     `json:"classification"`
	Region           *string `json:"shared_memory_region"`
	RegionOffset     *int64  `json:"shared_memory_offset"`
	RegionSize       *int64  `json:"shared_memory_byte_size"`
	Priority         int64   `json:"priority"`
	Timeout          int64   `json:"timeout"` // microseconds
}

// message returns the parameters that ModelInfer looks at.
func (p *parametersJSON) message() map[string]*pb.InferParameter {
	m := map[string]*pb.InferParameter{}
	setNumber := func(name string, n int64) {
		if n != 0 {
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: n}}
		}
	}
	setNumber("priority", p.Priority)
	setNumber("timeout", p.Timeout)
	setNumber(classification, int64(p.Classification))
	if p.Region != nil {
		m[sharedMemory] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: *p.Region}}
	}
	for name, n := range map[string]*int64{sharedMemoryOffset: p.RegionOffset, sharedMemorySize: p.RegionSize} {
		if n != nil {
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: *n}}
		}
	}
	return m
}

// handleInfer runs tensors, which are in the request's JSON or, one after the other, behind it.
func (s *Service) handleInfer(w http.ResponseWriter, r *http.Request) error {
	if err := s.modelReady(r.PathValue("model"), r.PathValue("version")); err != nil { // before the body is read
		return err
	}
	body, err := s.host.ReadBody(r)
	if err != nil {
		return err
	}
	header, binaryData, err := split(r, body)
	if err != nil {
		return err
	}
	var request inferJSON
	if err := transport.DecodeJSON(header, &request); err != nil {
		return err
	}
	message, tensors, err := request.message(binaryData)
	if err != nil {
		return err
	}
	message.ModelName, message.ModelVersion = r.PathValue("model"), r.PathValue("version")
	response, result, err := s.infer(local(r), message, tensors)
	if err != nil {
		return err
	}
	transport.SetTiming(w, result.Seconds)
	return request.respond(w, response, result.Outputs)
}

// split returns the JSON of a body and the binary tensors behind it.
func split(r *http.Request, body []byte) (header, binaryData []byte, err error) {
	value := r.Header.Get(headerLength)
	if value == "" {
		return body, nil, nil
	}
	n, err := strconv.Atoi(value)
	switch {
	case err != nil || n < 0 || n > len(body):
		return nil, nil, repository.Invalidf("%s is %q: the request has %d bytes", headerLength, value, len(body))
	case n == 0:
		return nil, nil, repository.Errorf(codes.Unimplemented,
			"a request of raw bytes alone is not supported: send its JSON in front")
	}
	return body[:n], body[n:], nil
}

// message returns the request as gRPC has it, with tensors as bytes or, if they are in the JSON, as they are.
func (j *inferJSON) message(binaryData []byte) (*pb.ModelInferRequest, map[int]repository.Tensor, error) {
	m := &pb.ModelInferRequest{Id: j.ID, Parameters: j.Parameters.message()}
	tensors := map[int]repository.Tensor{}
	for i := range j.Inputs {
		in := &j.Inputs[i]
		m.Inputs = append(m.Inputs, &pb.ModelInferRequest_InferInputTensor{
			Name: in.Name, Datatype: in.Datatype, Shape: in.Shape, Parameters: in.Parameters.message(),
		})
		var raw []byte
		switch size := in.Parameters.BinaryDataSize; {
		case in.Parameters.Region != nil: // which the method reads
			if in.Data != nil || size != nil {
				return nil, nil, repository.Invalidf("input %q has data beside that in shared memory", in.Name)
			}
			continue
		case size == nil:
			t := repository.Tensor{Name: in.Name, Type: in.Datatype}
			if err := tensor.ReadFlat(&t, in.Data); err != nil {
				return nil, nil, err
			}
			in.Data = nil // it may be large
			tensors[i] = t
		case *size < 0 || *size > len(binaryData):
			return nil, nil, repository.Invalidf("input %q has a binary_data_size of %d: %d bytes are left in the request",
				in.Name, *size, len(binaryData))
		default:
			raw, binaryData = binaryData[:*size], binaryData[*size:]
		}
		m.RawInputContents = append(m.RawInputContents, raw)
	}
	if len(binaryData) > 0 {
		return nil, nil, repository.Invalidf("the request has %d bytes more than its inputs' binary_data_size",
			len(binaryData))
	}
	for i := range j.Outputs {
		m.Outputs = append(m.Outputs, &pb.ModelInferRequest_InferRequestedOutputTensor{
			Name: j.Outputs[i].Name, Parameters: j.Outputs[i].Parameters.message(),
		})
	}
	return m, tensors, nil
}

type outputJSON struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Data       jsontext.Value `json:"data,omitempty"`
}

// respond writes the outputs, each as JSON or as bytes, as the request asks for it.
func (j *inferJSON) respond(w http.ResponseWriter, m *pb.ModelInferResponse, outputs []repository.Tensor) error {
	response := struct {
		ModelName    string       `json:"model_name"`
		ModelVersion string       `json:"model_version"`
		ID           string       `json:"id,omitempty"`
		Outputs      []outputJSON `json:"outputs"`
	}{m.GetModelName(), m.GetModelVersion(), m.GetId(), []outputJSON{}}
	var binaryData []byte
	anyBinary := false
	for i, t := range m.GetOutputs() {
		out := outputJSON{Name: t.GetName(), Datatype: t.GetDatatype(), Shape: t.GetShape()}
		switch {
		case inShared(t.GetParameters()):
			out.Parameters = map[string]any{}
			for name, p := range t.GetParameters() {
				if out.Parameters[name] = p.GetInt64Param(); name == sharedMemory {
					out.Parameters[name] = p.GetStringParam()
				}
			}
		case j.binary(i):
			before := len(binaryData)
			binaryData = tensor.AppendBinary(binaryData, &outputs[i])
			out.Parameters, anyBinary = map[string]any{"binary_data_size": len(binaryData) - before}, true
		default:
			var err error
			if out.Data, err = tensor.Flat(&outputs[i]); err != nil {
				return err
			}
		}
		response.Outputs = append(response.Outputs, out)
	}
	if !anyBinary {
		return transport.WriteJSON(w, response)
	}
	header, err := json.Marshal(response)
	if err != nil {
		return err
	}
	w.Header().Set(headerLength, strconv.Itoa(len(header)))
	transport.Write(w, "application/octet-stream", append(header, binaryData...))
	return nil
}

// binary reports whether the request asks for an output as bytes.
func (j *inferJSON) binary(output int) bool {
	if output < len(j.Outputs) && j.Outputs[output].Parameters.BinaryData != nil {
		return *j.Outputs[output].Parameters.BinaryData
	}
	return j.Parameters.BinaryDataOutput
}
