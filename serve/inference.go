package serve

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tfbert/go/serve/repository"
)

// The Open Inference Protocol over HTTP, with Triton's extensions for binary tensors, configuration,
// statistics and the model repository.

// headerLength is the length of the JSON in front of binary tensors.
const headerLength = "Inference-Header-Content-Length"

// platform of all models, and serverName, as clients of Triton see them.
const (
	platform   = "tensorflow_savedmodel"
	serverName = "tfbert"
)

var extensions = []string{"model_repository", "model_repository(unload_dependents)", "model_configuration", "binary_tensor_data", "statistics", "parameters"}

func (s *Server) handleInference(handle func(string, handler)) {
	handle("GET /v2", func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, struct {
			Name       string   `json:"name"`
			Version    string   `json:"version"`
			Extensions []string `json:"extensions"`
		}{serverName, s.opts.Version, extensions})
	})
	handle("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, map[string]bool{"live": true})
	})
	handle("GET /v2/health/ready", func(w http.ResponseWriter, _ *http.Request) error {
		if err := s.ready(); err != nil {
			return err
		}
		return writeJSON(w, map[string]bool{"ready": true})
	})
	handle("GET /v2/models/stats", s.statistics)
	for _, base := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		handle("GET "+base, s.modelMetadata)
		handle("GET "+base+"/ready", func(w http.ResponseWriter, r *http.Request) error {
			m, err := s.acquirePath(r)
			if err != nil {
				return err
			}
			m.Release()
			return writeJSON(w, map[string]any{"name": m.Name(), "ready": true})
		})
		handle("GET "+base+"/config", s.modelConfig)
		handle("GET "+base+"/stats", s.statistics)
		handle("POST "+base+"/infer", s.infer)
	}
	handle("POST /v2/repository/index", s.repositoryIndex)
	handle("POST /v2/repository/models/{model}/load", s.repositoryLoad)
	handle("POST /v2/repository/models/{model}/unload", s.repositoryUnload)
}

// acquirePath finds the model that a path names.
func (s *Server) acquirePath(r *http.Request) (repository.Handle, error) {
	return s.acquire(r.PathValue("model"), r.PathValue("version"))
}

// tensorMetadata describes an input or output.
type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// tensorMetadatas describes the tensors of a model's configuration.
func tensorMetadatas(m repository.Handle) (inputs, outputs []tensorMetadata) {
	types := map[string]string{}
	for _, info := range slices.Concat(m.Inputs(), m.Outputs()) {
		types[info.Name] = info.Type
	}
	c := m.Config()
	for _, in := range c.GetInput() {
		inputs = append(inputs, tensorMetadata{in.GetName(), types[in.GetName()], repository.Shape(c, in.GetDims())})
	}
	for _, out := range c.GetOutput() {
		outputs = append(outputs, tensorMetadata{out.GetName(), types[out.GetName()], repository.Shape(c, out.GetDims())})
	}
	return inputs, outputs
}

// versions lists those of a model that are available, ascending.
func (s *Server) versions(name string) []string {
	list := []string{}
	for _, v := range s.models.Versions(name) {
		if v.State == repository.Available {
			list = append(list, strconv.FormatInt(v.Version, 10))
		}
	}
	slices.Reverse(list)
	return list
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := s.acquirePath(r)
	if err != nil {
		return err
	}
	defer m.Release()
	inputs, outputs := tensorMetadatas(m)
	return writeJSON(w, struct {
		Name     string           `json:"name"`
		Versions []string         `json:"versions"`
		Platform string           `json:"platform"`
		Inputs   []tensorMetadata `json:"inputs"`
		Outputs  []tensorMetadata `json:"outputs"`
	}{m.Name(), s.versions(m.Name()), m.Config().GetPlatform(), inputs, outputs})
}

// modelConfig writes the configuration with the names of config.pbtxt. Numbers of 64 bits are numbers,
// as in Triton, not protobuf's strings.
func (s *Server) modelConfig(w http.ResponseWriter, r *http.Request) error {
	m, err := s.acquirePath(r)
	if err != nil {
		return err
	}
	defer m.Release()
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m.Config())
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	return writeJSON(w, numbers(v, ""))
}

// numbers turns the strings of 64-bit fields into numbers.
func numbers(v any, field string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if v[k] == nil {
				delete(v, k)
				continue
			}
			v[k] = numbers(v[k], k)
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i], field)
		}
	case string:
		wide := field == "dims" || field == "shape" || field == "versions" || strings.HasSuffix(field, "_microseconds") ||
			strings.HasSuffix(field, "_level") || strings.HasSuffix(field, "_levels") || strings.HasSuffix(field, "_byte_size")
		if n, err := strconv.ParseInt(v, 10, 64); wide && err == nil {
			return jsontext.Value(strconv.FormatInt(n, 10))
		}
	}
	return v
}

// durationJSON is a count of times and their sum.
type durationJSON struct {
	Count int   `json:"count"`
	NS    int64 `json:"ns"`
}

func newDuration(t repository.Total) durationJSON { return durationJSON{t.Count, t.Time.Nanoseconds()} }

type statisticsJSON struct {
	Name           string         `json:"name"`
	Version        string         `json:"version"`
	LastInference  int64          `json:"last_inference"` // milliseconds
	InferenceCount int            `json:"inference_count"`
	ExecutionCount int            `json:"execution_count"`
	Inference      map[string]any `json:"inference_stats"`
	Batches        []batchJSON    `json:"batch_stats"`
}

type batchJSON struct {
	BatchSize     int          `json:"batch_size"`
	ComputeInput  durationJSON `json:"compute_input"`
	ComputeInfer  durationJSON `json:"compute_infer"`
	ComputeOutput durationJSON `json:"compute_output"`
}

func (s *Server) statistics(w http.ResponseWriter, r *http.Request) error {
	list, release, err := s.statisticsOf(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	defer release()
	response := struct {
		Models []statisticsJSON `json:"model_stats"`
	}{[]statisticsJSON{}}
	for _, m := range list {
		t := m.Statistics().Snapshot()
		stats := statisticsJSON{
			Name: m.Name(), Version: strconv.FormatInt(m.Version(), 10), InferenceCount: t.Rows, ExecutionCount: t.Executions(),
			Inference: map[string]any{
				"success": newDuration(t.Success), "fail": newDuration(t.Fail), "queue": newDuration(t.Queue),
				"compute_input": newDuration(t.Input), "compute_infer": newDuration(t.Compute), "compute_output": newDuration(t.Outputs),
				"cache_hit": durationJSON{}, "cache_miss": durationJSON{},
			},
			Batches: []batchJSON{},
		}
		if !t.Last.IsZero() {
			stats.LastInference = t.Last.UnixMilli()
		}
		for _, size := range t.Sizes() {
			stats.Batches = append(stats.Batches, batchJSON{BatchSize: size, ComputeInfer: newDuration(t.Batches[size])})
		}
		response.Models = append(response.Models, stats)
	}
	return writeJSON(w, response)
}

// statisticsOf finds the models whose statistics a request wants: one, or all and their text-in models.
func (s *Server) statisticsOf(name, version string) (list []repository.Handle, release func(), err error) {
	if name != "" {
		m, err := s.acquire(name, version)
		return []repository.Handle{m}, m.Release, err
	}
	models := s.models.Models()
	for _, m := range models {
		list = append(list, m, repository.Handle{Model: m.Model, Text: true})
	}
	return list, func() {
		for _, m := range models {
			m.Release()
		}
	}, nil
}

// indexEntry is a version in the repository's index.
type indexEntry struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// index lists the versions of all models and their text-in models in Triton's terms.
func (s *Server) index(readyOnly bool) ([]indexEntry, error) {
	list, err := s.models.Index()
	if err != nil {
		return nil, err
	}
	entries := []indexEntry{}
	for _, status := range list {
		e := indexEntry{Name: status.Name, Reason: status.Reason}
		if status.Version > 0 {
			e.Version = strconv.FormatInt(status.Version, 10)
		}
		switch status.State {
		case repository.Available:
			e.State = "READY"
		case repository.Loading:
			e.State = "LOADING"
		case repository.End:
			e.State = "UNAVAILABLE"
		}
		if readyOnly && e.State != "READY" {
			continue
		}
		entries = append(entries, e)
		if e.State == "READY" {
			e.Name += repository.TextSuffix
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func (s *Server) repositoryIndex(w http.ResponseWriter, r *http.Request) error {
	if err := s.admin(r.Header.Get("Authorization")); err != nil {
		return err
	}
	var request struct {
		Ready bool `json:"ready"`
	}
	if err := s.readOptional(r, &request); err != nil {
		return err
	}
	entries, err := s.index(request.Ready)
	if err != nil {
		return err
	}
	return writeJSON(w, entries)
}

// readOptional reads a body that may be empty.
func (s *Server) readOptional(r *http.Request, v any) error {
	body, err := s.readBody(r)
	if err != nil || len(body) == 0 {
		return err
	}
	return decodeJSON(body, v)
}

func (s *Server) repositoryLoad(w http.ResponseWriter, r *http.Request) error {
	if err := s.admin(r.Header.Get("Authorization")); err != nil {
		return err
	}
	var request struct {
		Parameters map[string]any `json:"parameters"`
	}
	if err := s.readOptional(r, &request); err != nil {
		return err
	}
	if len(request.Parameters) > 0 {
		return errNoOverrides
	}
	if err := s.models.Load(r.Context(), r.PathValue("model")); err != nil {
		return err
	}
	return writeJSON(w, struct{}{})
}

// errNoOverrides refuses Triton's way to send a configuration or the model itself with the request.
var errNoOverrides = repository.Errorf(codes.Unimplemented, "a model is loaded as it is in the repository: config and file parameters are not supported")

func (s *Server) repositoryUnload(w http.ResponseWriter, r *http.Request) error {
	if err := s.admin(r.Header.Get("Authorization")); err != nil {
		return err
	}
	if err := s.models.Unload(r.PathValue("model")); err != nil {
		return err
	}
	return writeJSON(w, struct{}{})
}

// inferJSON is the JSON of an inference request.
type inferJSON struct {
	ID         string                   `json:"id"`
	Parameters parametersJSON           `json:"parameters"`
	Inputs     bounded[inferInputJSON]  `json:"inputs"`
	Outputs    bounded[inferOutputJSON] `json:"outputs"`
}

type inferOutputJSON struct {
	Name       string         `json:"name"`
	Parameters parametersJSON `json:"parameters"`
}

type inferInputJSON struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Parameters parametersJSON `json:"parameters"`
	Data       jsontext.Value `json:"data"`
}

// parametersJSON are those that mean something here, of a request, an input or an output.
type parametersJSON struct {
	BinaryDataSize   *int           `json:"binary_data_size"`
	BinaryDataOutput bool           `json:"binary_data_output"`
	BinaryData       *bool          `json:"binary_data"`
	Classification   int            `json:"classification"`
	SharedMemory     string         `json:"shared_memory_region"`
	Priority         int            `json:"priority"`
	Timeout          int64          `json:"timeout"` // microseconds
	Sequence         jsontext.Value `json:"sequence_id"`
}

func (p *parametersJSON) check() error {
	switch {
	case p.SharedMemory != "":
		return repository.Errorf(codes.Unimplemented, "shared memory is not supported: send the tensors")
	case p.Classification != 0:
		return repository.Errorf(codes.Unimplemented, "classification is not supported: take the logits")
	}
	return nil
}

type outputJSON struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Parameters map[string]int `json:"parameters,omitempty"`
	Data       jsontext.Value `json:"data,omitempty"`
}

// infer runs tensors. Those of the request are in its JSON or, one after the other, behind it.
func (s *Server) infer(w http.ResponseWriter, r *http.Request) error {
	m, err := s.acquirePath(r)
	if err != nil {
		return err
	}
	defer m.Release()
	body, err := s.readBody(r)
	if err != nil {
		return err
	}
	header, rest := body, []byte(nil)
	if value := r.Header.Get(headerLength); value != "" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > len(body) {
			return repository.Errorf(codes.InvalidArgument, "%s is %q: the request has %d bytes", headerLength, value, len(body))
		}
		if n == 0 {
			return repository.Errorf(codes.Unimplemented, "a request of raw bytes alone is not supported: send its JSON in front")
		}
		header, rest = body[:n], body[n:]
	}
	var request inferJSON
	if err := decodeJSON(header, &request); err != nil {
		return err
	}
	call, err := request.call(m, rest)
	if err != nil {
		return err
	}
	result, err := m.Infer(r.Context(), call)
	if err != nil {
		return err
	}
	setTiming(w, result.Seconds)
	return request.write(w, m, result.Outputs)
}

// call puts a request in the repository's terms.
func (j *inferJSON) call(m repository.Handle, binaryData []byte) (*repository.Call, error) {
	if err := j.Parameters.check(); err != nil {
		return nil, err
	}
	call := &repository.Call{MaxBatch: true, Priority: j.Parameters.Priority, Timeout: time.Duration(max(0, min(j.Parameters.Timeout, 1<<40))) * time.Microsecond}
	for i := range j.Inputs {
		in := &j.Inputs[i]
		if err := in.Parameters.check(); err != nil {
			return nil, err
		}
		t := repository.Tensor{Name: in.Name, Type: in.Datatype, Shape: in.Shape}
		var err error
		if size := in.Parameters.BinaryDataSize; size != nil {
			if *size < 0 || *size > len(binaryData) {
				return nil, repository.Errorf(codes.InvalidArgument, "input %q has a binary_data_size of %d: %d bytes are left in the request", in.Name, *size, len(binaryData))
			}
			err = readBinary(&t, binaryData[:*size])
			binaryData = binaryData[*size:]
		} else {
			err = readData(&t, in.Data)
		}
		if err != nil {
			return nil, err
		}
		call.Inputs = append(call.Inputs, t)
	}
	if len(binaryData) > 0 {
		return nil, repository.Errorf(codes.InvalidArgument, "the request has %d bytes more than its inputs' binary_data_size", len(binaryData))
	}
	for i := range j.Outputs {
		if err := j.Outputs[i].Parameters.check(); err != nil {
			return nil, err
		}
		call.Outputs = append(call.Outputs, j.Outputs[i].Name)
	}
	if len(call.Outputs) == 0 {
		call.Outputs = configuredOutputs(m)
	}
	return call, nil
}

// configuredOutputs are those that a client of Triton gets if it names none: of the configuration,
// which may leave out some of the model's.
func configuredOutputs(m repository.Handle) []string {
	var names []string
	for _, out := range m.Config().GetOutput() {
		names = append(names, out.GetName())
	}
	return names
}

// write writes the outputs in the order that the client named them.
func (j *inferJSON) write(w http.ResponseWriter, m repository.Handle, outputs []repository.Tensor) error {
	response := struct {
		ModelName    string       `json:"model_name"`
		ModelVersion string       `json:"model_version"`
		ID           string       `json:"id,omitempty"`
		Outputs      []outputJSON `json:"outputs"`
	}{m.Name(), strconv.FormatInt(m.Version(), 10), j.ID, []outputJSON{}}
	var binaryData []byte
	anyBinary := false
	add := func(t repository.Tensor, asBinary bool) error {
		out := outputJSON{Name: t.Name, Datatype: t.Type, Shape: configuredShape(m, t)}
		if asBinary {
			before := len(binaryData)
			binaryData = appendBinary(binaryData, &t)
			out.Parameters, anyBinary = map[string]int{"binary_data_size": len(binaryData) - before}, true
		} else {
			data, err := tensorData(&t)
			if err != nil {
				return err
			}
			out.Data = data
		}
		response.Outputs = append(response.Outputs, out)
		return nil
	}
	if len(j.Outputs) == 0 {
		for _, t := range outputs {
			if err := add(t, j.Parameters.BinaryDataOutput); err != nil {
				return err
			}
		}
	}
	for _, want := range j.Outputs {
		asBinary := j.Parameters.BinaryDataOutput
		if want.Parameters.BinaryData != nil {
			asBinary = *want.Parameters.BinaryData
		}
		at := slices.IndexFunc(outputs, func(t repository.Tensor) bool { return t.Name == want.Name })
		if err := add(outputs[at], asBinary); err != nil {
			return err
		}
	}
	if !anyBinary {
		return writeJSON(w, response)
	}
	header, err := json.Marshal(response)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(headerLength, strconv.Itoa(len(header)))
	w.Header().Set("Content-Length", strconv.Itoa(len(header)+len(binaryData)))
	_, _ = w.Write(append(header, binaryData...)) // the client may have gone
	return nil
}

// configuredShape is a tensor's shape as its configuration has it: a number for each row is a column
// there, which the graph's own signature has as a vector.
func configuredShape(m repository.Handle, t repository.Tensor) []int64 {
	for _, out := range m.Config().GetOutput() {
		if out.GetName() == t.Name && len(t.Shape) == 1 && len(out.GetDims()) == 1 && m.Config().GetMaxBatchSize() > 0 {
			return []int64{t.Shape[0], 1}
		}
	}
	return t.Shape
}

// readData reads a tensor's elements from JSON, flat or nested.
func readData(t *repository.Tensor, data jsontext.Value) error {
	if len(data) == 0 {
		return repository.Errorf(codes.InvalidArgument, "input %q has no data", t.Name)
	}
	if data.Kind() != '[' {
		return repository.Errorf(codes.InvalidArgument, "the data of input %q must be an array", t.Name)
	}
	return readElements(t, data)
}

// readElements adds the elements of JSON, at whatever depth, to a tensor. Of a type that no input here
// has it reads none: the call says so.
func readElements(t *repository.Tensor, data jsontext.Value) error {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.ReadToken()
		if err != nil {
			return nil //nolint:nilerr // the end: the text is JSON, or it would not be here
		}
		if kind := token.Kind(); kind == '[' || kind == ']' {
			continue
		}
		if err := readElement(t, token); err != nil {
			return err
		}
	}
}

func readElement(t *repository.Tensor, token jsontext.Token) error {
	switch kind := token.Kind(); {
	case kind == '0' && t.Type == repository.Int32:
		n, err := strconv.ParseInt(token.String(), 10, 32)
		if err != nil {
			return repository.Errorf(codes.InvalidArgument, "input %q holds %s: it must hold whole numbers of 32 bits", t.Name, token)
		}
		t.Int32s = append(t.Int32s, int32(n))
	case kind == '"' && t.Type == repository.Bytes:
		t.Strings = append(t.Strings, token.String())
	case t.Type == repository.Int32 || t.Type == repository.Bytes:
		return repository.Errorf(codes.InvalidArgument, "input %q is %s and holds %s", t.Name, t.Type, kind)
	}
	return nil
}

// readBinary reads a tensor's elements from the bytes of the binary extension.
func readBinary(t *repository.Tensor, data []byte) error {
	switch t.Type {
	case repository.Int32:
		if len(data)%4 != 0 {
			return repository.Errorf(codes.InvalidArgument, "input %q has %d bytes: an element of %s has 4", t.Name, len(data), t.Type)
		}
		t.Int32s = make([]int32, len(data)/4)
		for i := range t.Int32s {
			t.Int32s[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case repository.Bytes:
		for len(data) > 0 {
			if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
				return repository.Errorf(codes.InvalidArgument, "input %q ends within an element: each has its length, in 4 bytes, in front", t.Name)
			}
			n := 4 + int(binary.LittleEndian.Uint32(data))
			t.Strings = append(t.Strings, string(data[4:n]))
			data = data[n:]
		}
	}
	return nil
}

func appendBinary(b []byte, t *repository.Tensor) []byte {
	b = slices.Grow(b, 4*(len(t.Int32s)+len(t.Float32s)))
	for _, x := range t.Int32s {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	for _, x := range t.Float32s {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	for _, x := range t.Strings {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(x)))
		b = append(b, x...)
	}
	return b
}

// tensorData gives a tensor's elements as flat JSON.
func tensorData(t *repository.Tensor) (jsontext.Value, error) {
	var v any = t.Strings
	switch t.Type {
	case repository.Int32:
		v = t.Int32s
	case repository.Float32:
		v = t.Float32s
		for _, x := range t.Float32s {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, repository.Errorf(codes.Internal, "output %q holds %v, which JSON has not: ask for binary data, and doubt the model's weights", t.Name, x)
			}
		}
	}
	return json.Marshal(v)
}
