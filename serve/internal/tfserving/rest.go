package tfserving

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// Handle adds the verbs over REST.
func (s *Service) Handle(handle transport.Handle) {
	for _, version := range []string{"", "/versions/{version}", "/labels/{label}"} {
		base := "/v1/models/{model}" + version
		handle("GET "+base, s.status)
		handle("GET "+base+"/metadata", s.metadata)
		// A wildcard is a whole segment, so that the verb behind the colon is cut off by the handler.
		segment := strings.Trim(base[strings.LastIndexByte(base, '/')+1:], "{}")
		handle("POST "+base, func(w http.ResponseWriter, r *http.Request) error { return s.verb(w, r, segment) })
	}
}

// spec returns the model that a path names.
func spec(r *http.Request) (*pb.ModelSpec, error) {
	m := &pb.ModelSpec{Name: r.PathValue("model")}
	if label := r.PathValue("label"); label != "" {
		m.VersionChoice = &pb.ModelSpec_VersionLabel{VersionLabel: label}
		return m, nil
	}
	version, err := parseVersion(r.PathValue("version"))
	if version != nil {
		m.VersionChoice = &pb.ModelSpec_Version{Version: version}
	}
	return m, err
}

// errorCodes are the names of the codes that a version's status may have.
var errorCodes = map[int32]string{int32(codes.OK): "OK", int32(codes.Unknown): "UNKNOWN"}

func (s *Service) status(w http.ResponseWriter, r *http.Request) error {
	m, err := spec(r)
	if err != nil {
		return err
	}
	status, err := s.GetModelStatus(r.Context(), &pb.GetModelStatusRequest{ModelSpec: m})
	if err != nil {
		return err
	}
	type versionJSON struct {
		Version string `json:"version"`
		State   string `json:"state"`
		Status  struct {
			Code    string `json:"error_code"`
			Message string `json:"error_message"`
		} `json:"status"`
	}
	var response struct {
		Status []versionJSON `json:"model_version_status"`
	}
	for _, v := range status.GetModelVersionStatus() {
		j := versionJSON{Version: strconv.FormatInt(v.GetVersion(), 10), State: v.GetState().String()}
		j.Status.Code, j.Status.Message = errorCodes[v.GetStatus().GetErrorCode()], v.GetStatus().GetErrorMessage()
		response.Status = append(response.Status, j)
	}
	return transport.WriteJSON(w, response)
}

func (s *Service) metadata(w http.ResponseWriter, r *http.Request) error {
	named, err := spec(r)
	if err != nil {
		return err
	}
	m, err := s.acquire(named)
	if err != nil {
		return err
	}
	defer m.Release()
	signature := signatures(m).GetSignatureDef()[defaultSignature]
	return transport.WriteJSON(w, map[string]any{
		"model_spec": map[string]string{
			"name": m.Name(), "signature_name": "", "version": strconv.FormatInt(m.Version(), 10),
		},
		"metadata": map[string]any{"signature_def": map[string]any{"signature_def": map[string]any{
			defaultSignature: map[string]any{
				"inputs": tensorsJSON(signature.GetInputs()), "outputs": tensorsJSON(signature.GetOutputs()),
				"method_name": signature.GetMethodName(),
			},
		}}},
	})
}

// tensorJSON is a TensorInfo as protobuf's JSON has it.
type tensorJSON struct {
	DType string `json:"dtype"`
	Shape struct {
		Dim     []dimJSON `json:"dim"`
		Unknown bool      `json:"unknown_rank"`
	} `json:"tensor_shape"`
	Name string `json:"name"`
}

type dimJSON struct {
	Size string `json:"size"`
	Name string `json:"name"`
}

func tensorsJSON(infos map[string]*tfproto.TensorInfo) map[string]tensorJSON {
	list := map[string]tensorJSON{}
	for name, info := range infos {
		t := tensorJSON{DType: tensor.DTypeName(info.GetDtype()), Name: info.GetName()}
		t.Shape.Dim = []dimJSON{}
		for _, d := range info.GetTensorShape().GetDim() {
			t.Shape.Dim = append(t.Shape.Dim, dimJSON{Size: strconv.FormatInt(d.GetSize(), 10)})
		}
		list[name] = t
	}
	return list
}

// verb serves the verb at the end of a path, behind the last segment's value.
func (s *Service) verb(w http.ResponseWriter, r *http.Request, segment string) error {
	last, verb, ok := strings.Cut(r.PathValue(segment), ":")
	switch {
	case !ok:
		return repository.Errorf(codes.NotFound, "no such endpoint: POST %s: a verb such as :predict is missing",
			r.URL.Path)
	case verb == "classify" || verb == "regress":
		return repository.Errorf(codes.Unimplemented,
			"%s takes tf.Example, which a question-answering model does not: use predict", verb)
	case verb != "predict":
		return repository.Errorf(codes.NotFound, "unknown verb %q: use predict", verb)
	}
	r.SetPathValue(segment, last)
	return s.predict(w, r)
}

// predictJSON is the body of predict, in rows (instances) or in columns (inputs), which are parts of the body.
type predictJSON struct {
	Signature string         `json:"signature_name"`
	Instances jsontext.Value `json:"-"`
	Inputs    jsontext.Value `json:"-"`
}

// readPredict reads the body of predict.
func (s *Service) readPredict(r *http.Request) (request predictJSON, err error) {
	body, err := s.host.ReadBody(r)
	if err != nil {
		return request, err
	}
	if err := transport.DecodeJSON(body, &request); err != nil {
		return request, err
	}
	err = transport.Members(body, func(name string, value jsontext.Value) error {
		switch name {
		case "instances":
			request.Instances = value
		case "inputs":
			request.Inputs = value
		}
		return nil
	})
	return request, err
}

func (s *Service) predict(w http.ResponseWriter, r *http.Request) error {
	named, err := spec(r)
	if err != nil {
		return err
	}
	m, err := s.acquire(named) // for the types of its inputs
	if err != nil {
		return err
	}
	inputs := m.Inputs()
	m.Release()
	request, err := s.readPredict(r)
	if err != nil {
		return err
	}
	if request.Instances.Kind() == 'n' {
		request.Instances = nil
	}
	named.SignatureName = request.Signature
	rows := request.Instances != nil
	if rows && request.Instances.Kind() != '[' {
		return repository.Invalidf("instances must be an array")
	}
	if rows == (request.Inputs != nil) {
		return repository.Invalidf("send either instances, in rows, or inputs, in columns")
	}
	var tensors []repository.Tensor
	if rows {
		tensors, err = rowTensors(inputs, request.Instances)
	} else {
		tensors, err = columnTensors(inputs, request.Inputs)
	}
	if err != nil {
		return err
	}
	message := &pb.PredictRequest{ModelSpec: named, Inputs: map[string]*tfproto.TensorProto{}}
	for i := range tensors {
		message.Inputs[tensors[i].Name] = tensor.ToProto(&tensors[i])
	}
	_, result, err := s.infer(r.Context(), message)
	if err != nil {
		return err
	}
	transport.SetTiming(w, result.Seconds)
	respond(w, result.Outputs, rows)
	return nil
}

// mostRows is more than a model takes at once. They are counted while they are read.
const mostRows = 8 << 10

// rowTensors returns the tensors of rows, which are objects with a value of each input.
func rowTensors(infos []repository.TensorInfo, rows jsontext.Value) ([]repository.Tensor, error) {
	var tensors []repository.Tensor
	d := jsontext.NewDecoder(bytes.NewBuffer(rows)) // it is read in place
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	i := 0
	for ; d.PeekKind() != ']'; i++ {
		if i == mostRows {
			return nil, repository.Invalidf("instances has more than %d elements", mostRows)
		}
		row, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		if row.Kind() != '{' {
			return nil, repository.Invalidf("instance %d must be an object with the inputs' names", i)
		}
		values, err := namedValues(infos, row)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			for _, info := range infos { // in the signature's order
				if _, ok := values[info.Name]; ok {
					tensors = append(tensors, repository.Tensor{Name: info.Name, Type: info.Type})
				}
			}
		}
		if len(values) != len(tensors) {
			return nil, repository.Invalidf("instance %d has %d inputs, the first %d", i, len(values), len(tensors))
		}
		for k := range tensors {
			t := &tensors[k]
			value, ok := values[t.Name]
			if !ok {
				return nil, repository.Invalidf("instance %d does not have %q", i, t.Name)
			}
			shape, err := tensor.ReadNested(t, value)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				t.Shape = append([]int64{0}, shape...)
			} else if !slices.Equal(t.Shape[1:], shape) {
				return nil, repository.Invalidf("%q has the shape %v in instance %d and %v in the first",
					t.Name, shape, i, t.Shape[1:])
			}
		}
	}
	if i == 0 {
		return nil, repository.Invalidf("instances is empty")
	}
	for k := range tensors {
		tensors[k].Shape[0] = int64(i)
	}
	return tensors, nil
}

// columnTensors returns the tensors of columns, an object with the values of each input.
func columnTensors(infos []repository.TensorInfo, columns jsontext.Value) ([]repository.Tensor, error) {
	if columns.Kind() == 'n' {
		return nil, nil
	}
	if columns.Kind() != '{' {
		return nil, repository.Invalidf("inputs must be an object with the inputs' names")
	}
	values, err := namedValues(infos, columns)
	if err != nil {
		return nil, err
	}
	var tensors []repository.Tensor
	for _, info := range infos {
		value, ok := values[info.Name]
		if !ok {
			continue
		}
		t := repository.Tensor{Name: info.Name, Type: info.Type}
		var err error
		if t.Shape, err = tensor.ReadNested(&t, value); err != nil {
			return nil, err
		}
		tensors = append(tensors, t)
	}
	return tensors, nil
}

// namedValues returns the values of an object by their names, all of which are inputs'.
func namedValues(infos []repository.TensorInfo, object jsontext.Value) (map[string]jsontext.Value, error) {
	values := map[string]jsontext.Value{}
	return values, transport.Members(object, func(name string, value jsontext.Value) error {
		if !slices.ContainsFunc(infos, func(info repository.TensorInfo) bool { return info.Name == name }) {
			return repository.Invalidf("the model does not have an input %.100q", name)
		}
		values[name] = value
		return nil
	})
}

// respond writes the outputs in rows or in columns, as the inputs came. A single output goes without its
// name. The text is put together by hand, because logits may be numbers that JSON does not have.
func respond(w http.ResponseWriter, outputs []repository.Tensor, rows bool) {
	var b []byte
	named := func(appendTo func(b []byte, t *repository.Tensor) []byte) {
		if len(outputs) == 1 {
			b = appendTo(b, &outputs[0])
			return
		}
		b = append(b, '{')
		for i := range outputs {
			if i > 0 {
				b = append(b, ',')
			}
			b, _ = jsontext.AppendQuote(b, outputs[i].Name)
			b = append(b, ':')
			b = appendTo(b, &outputs[i])
		}
		b = append(b, '}')
	}
	n := int(outputs[0].Shape[0])
	if rows {
		b = append(b, `{"predictions":[`...)
		for row := range n {
			if row > 0 {
				b = append(b, ',')
			}
			named(func(b []byte, t *repository.Tensor) []byte { return tensor.AppendRow(b, t, row) })
		}
		b = append(b, "]}\n"...)
	} else {
		b = append(b, `{"outputs":`...)
		named(func(b []byte, t *repository.Tensor) []byte {
			b = append(b, '[')
			for row := range n {
				if row > 0 {
					b = append(b, ',')
				}
				b = tensor.AppendRow(b, t, row)
			}
			return append(b, ']')
		})
		b = append(b, "}\n"...)
	}
	transport.Write(w, "application/json", b)
}
