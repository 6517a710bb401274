package serve

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// TensorFlow Serving's REST.

func (s *Server) handleServing(handle func(string, handler)) {
	for _, version := range []string{"", "/versions/{version}", "/labels/{label}"} {
		base := "/v1/models/{model}" + version
		handle("GET "+base, s.modelStatus)
		handle("GET "+base+"/metadata", s.servingMetadata)
	}
	// A pattern's wildcard is a whole segment: the verb behind the colon is cut off here.
	for _, pattern := range []string{"POST /v1/models/{verb}", "POST /v1/models/{model}/versions/{verb}", "POST /v1/models/{model}/labels/{verb}"} {
		handle(pattern, s.servingVerb)
	}
}

// servable finds a model as TensorFlow Serving's paths name it.
func (s *Server) servable(name, version, label string) (repository.Handle, error) {
	if label != "" {
		return repository.Handle{}, repository.Errorf(codes.NotFound, "model %q has no version with the label %q: this server has no labels", name, label)
	}
	m, err := s.acquire(name, version)
	if err != nil && repository.AsError(err).Code == codes.NotFound {
		servable := fmt.Sprintf("Latest(%s)", name)
		if version != "" {
			servable = fmt.Sprintf("Specific(%s, %s)", name, version)
		}
		return m, repository.Errorf(codes.NotFound, "Servable not found for request: %s", servable)
	}
	return m, err
}

type versionStatusJSON struct {
	Version string `json:"version"`
	State   string `json:"state"`
	Status  struct {
		Code    string `json:"error_code"`
		Message string `json:"error_message"`
	} `json:"status"`
}

// statusesOf lists the states of a model's versions, or of one.
func (s *Server) statusesOf(name string, version int64) ([]repository.Status, error) {
	list := s.models.Versions(name)
	if version != 0 {
		list = slices.DeleteFunc(list, func(v repository.Status) bool { return v.Version != version })
	}
	list = slices.DeleteFunc(list, func(v repository.Status) bool { return v.Version == 0 && v.Reason == "" })
	if len(list) == 0 {
		return nil, repository.Errorf(codes.NotFound, "Could not find any versions of model %s", name)
	}
	return list, nil
}

func (s *Server) modelStatus(w http.ResponseWriter, r *http.Request) error {
	var number int64
	if version := r.PathValue("version"); version != "" {
		var err error
		if number, err = strconv.ParseInt(version, 10, 64); err != nil {
			return repository.Errorf(codes.InvalidArgument, "the version is %q: it must be a number such as 1", version)
		}
	}
	if label := r.PathValue("label"); label != "" {
		_, err := s.servable(r.PathValue("model"), "", label)
		return err
	}
	list, err := s.statusesOf(r.PathValue("model"), number)
	if err != nil {
		return err
	}
	var response struct {
		Status []versionStatusJSON `json:"model_version_status"`
	}
	for _, v := range list {
		j := versionStatusJSON{Version: strconv.FormatInt(v.Version, 10), State: v.State.String()}
		if j.Status.Code = "OK"; v.Reason != "" && v.State != repository.Available {
			j.Status.Code, j.Status.Message = "UNKNOWN", v.Reason
		}
		response.Status = append(response.Status, j)
	}
	return writeJSON(w, response)
}

// signatureTensors gives the tensors of a model's signature: for its text-in model vectors, as rows of
// JSON show a column of one.
func signatureTensors(m repository.Handle) (inputs, outputs []repository.TensorInfo) {
	vectors := func(infos []repository.TensorInfo) []repository.TensorInfo {
		infos = slices.Clone(infos)
		for i := range infos {
			infos[i].Shape = infos[i].Shape[:1]
		}
		return infos
	}
	if m.Text {
		return vectors(m.Inputs()), vectors(m.Outputs())
	}
	return m.Inputs(), m.Outputs()
}

const (
	servingDefault = "serving_default"
	predictMethod  = "tensorflow/serving/predict"
)

// dtypes are the names of types in TensorFlow.
var dtypes = map[string]string{repository.Int32: "DT_INT32", repository.Float32: "DT_FLOAT", repository.Bytes: "DT_STRING"}

func (s *Server) servingMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := s.servable(r.PathValue("model"), r.PathValue("version"), r.PathValue("label"))
	if err != nil {
		return err
	}
	defer m.Release()
	type dim struct {
		Size string `json:"size"`
		Name string `json:"name"`
	}
	type shape struct {
		Dim     []dim `json:"dim"`
		Unknown bool  `json:"unknown_rank"`
	}
	type tensor struct {
		DType string `json:"dtype"`
		Shape shape  `json:"tensor_shape"`
		Name  string `json:"name"`
	}
	tensors := func(infos []repository.TensorInfo) map[string]tensor {
		list := map[string]tensor{}
		for _, info := range infos {
			t := tensor{DType: dtypes[info.Type], Name: info.TensorName, Shape: shape{Dim: []dim{}}}
			for _, d := range info.Shape {
				t.Shape.Dim = append(t.Shape.Dim, dim{Size: strconv.FormatInt(d, 10)})
			}
			list[info.Name] = t
		}
		return list
	}
	inputs, outputs := signatureTensors(m)
	return writeJSON(w, map[string]any{
		"model_spec": map[string]string{"name": m.Name(), "signature_name": "", "version": strconv.FormatInt(m.Version(), 10)},
		"metadata": map[string]any{"signature_def": map[string]any{"signature_def": map[string]any{
			servingDefault: map[string]any{"inputs": tensors(inputs), "outputs": tensors(outputs), "method_name": predictMethod},
		}}},
	})
}

// servingVerb finds the verb at the end of a path.
func (s *Server) servingVerb(w http.ResponseWriter, r *http.Request) error {
	last, verb, ok := strings.Cut(r.PathValue("verb"), ":")
	model, version, label := r.PathValue("model"), "", ""
	switch {
	case strings.HasPrefix(r.Pattern, "POST /v1/models/{verb}"):
		model = last
	case strings.Contains(r.Pattern, "/labels/"):
		label = last
	default:
		version = last
	}
	switch {
	case !ok:
		return repository.Errorf(codes.NotFound, "there is no POST %s: a verb such as :predict is missing", r.URL.Path)
	case verb == "classify" || verb == "regress":
		return repository.Errorf(codes.Unimplemented, "%s takes tf.Example, which a question-answering model does not: use predict", verb)
	case verb != "predict":
		return repository.Errorf(codes.NotFound, "there is no verb %q: use predict", verb)
	}
	m, err := s.servable(model, version, label)
	if err != nil {
		return err
	}
	defer m.Release()
	return s.servingPredict(w, r, m)
}

// predictJSON is the body of predict, in rows (instances) or in columns (inputs).
type predictJSON struct {
	Signature string           `json:"signature_name"`
	Instances []jsontext.Value `json:"instances"`
	Inputs    jsontext.Value   `json:"inputs"`
}

func (s *Server) servingPredict(w http.ResponseWriter, r *http.Request, m repository.Handle) error {
	var request predictJSON
	if err := s.readJSON(r, &request); err != nil {
		return err
	}
	if err := checkSignature(m, request.Signature); err != nil {
		return err
	}
	rows := request.Instances != nil
	if rows == (request.Inputs != nil) {
		return repository.Errorf(codes.InvalidArgument, "send either instances, in rows, or inputs, in columns")
	}
	call := &repository.Call{}
	infos, _ := signatureTensors(m)
	var err error
	if rows {
		call.Inputs, err = rowTensors(infos, request.Instances)
	} else {
		call.Inputs, err = columnTensors(infos, request.Inputs)
	}
	if err != nil {
		return err
	}
	result, err := m.Infer(r.Context(), call)
	if err != nil {
		return err
	}
	setTiming(w, result.Seconds)
	return writePrediction(w, m, result.Outputs, rows)
}

func checkSignature(m repository.Handle, name string) error {
	if name != "" && name != servingDefault {
		return repository.Errorf(codes.InvalidArgument, "model %s has no signature %q: it has %q", m.Name(), name, servingDefault)
	}
	return nil
}

// rowTensors makes tensors of rows, objects with a value of each input.
func rowTensors(infos []repository.TensorInfo, rows []jsontext.Value) ([]repository.Tensor, error) {
	if len(rows) == 0 {
		return nil, repository.Errorf(codes.InvalidArgument, "instances is empty")
	}
	var tensors []repository.Tensor
	for i, row := range rows {
		values := map[string]jsontext.Value{}
		if err := decodeJSON(row, &values); err != nil {
			return nil, repository.Errorf(codes.InvalidArgument, "instance %d must be an object with the inputs' names", i)
		}
		if i == 0 {
			for _, info := range infos { // in the signature's order
				if _, ok := values[info.Name]; ok {
					tensors = append(tensors, repository.Tensor{Name: info.Name, Type: info.Type})
				}
			}
		}
		if err := unknown(infos, values); err != nil {
			return nil, err
		}
		if len(values) != len(tensors) {
			return nil, repository.Errorf(codes.InvalidArgument, "instance %d has %d inputs, the first %d", i, len(values), len(tensors))
		}
		for k := range tensors {
			t := &tensors[k]
			value, ok := values[t.Name]
			if !ok {
				return nil, repository.Errorf(codes.InvalidArgument, "instance %d has no %q", i, t.Name)
			}
			shape, err := readNested(t, value)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				t.Shape = append([]int64{int64(len(rows))}, shape...)
			} else if !slices.Equal(t.Shape[1:], shape) {
				return nil, repository.Errorf(codes.InvalidArgument, "%q has the shape %v in instance %d and %v in the first", t.Name, shape, i, t.Shape[1:])
			}
		}
	}
	return tensors, nil
}

func columnTensors(infos []repository.TensorInfo, columns jsontext.Value) ([]repository.Tensor, error) {
	values := map[string]jsontext.Value{}
	if err := decodeJSON(columns, &values); err != nil {
		return nil, repository.Errorf(codes.InvalidArgument, "inputs must be an object with the inputs' names")
	}
	if err := unknown(infos, values); err != nil {
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
		if t.Shape, err = readNested(&t, value); err != nil {
			return nil, err
		}
		tensors = append(tensors, t)
	}
	return tensors, nil
}

// unknown refuses a name that no input has.
func unknown(infos []repository.TensorInfo, values map[string]jsontext.Value) error {
	for name := range values {
		if !slices.ContainsFunc(infos, func(info repository.TensorInfo) bool { return info.Name == name }) {
			return repository.Errorf(codes.InvalidArgument, "the model has no input %q", name)
		}
	}
	return nil
}

// readNested adds the elements of a nested array to a tensor and gives the array's shape. An object
// {"b64": …} stands for bytes.
func readNested(t *repository.Tensor, value jsontext.Value) ([]int64, error) {
	return readArray(t, jsontext.NewDecoder(bytes.NewReader(value)))
}

// mostDimensions is more than any input has.
const mostDimensions = 8

func readArray(t *repository.Tensor, d *jsontext.Decoder) ([]int64, error) {
	switch d.PeekKind() {
	case '[':
		if d.StackDepth() == mostDimensions {
			return nil, repository.Errorf(codes.InvalidArgument, "%q has more than %d dimensions", t.Name, mostDimensions)
		}
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		var inner []int64
		n := int64(0)
		for ; d.PeekKind() != ']'; n++ {
			shape, err := readArray(t, d)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				inner = shape
			} else if !slices.Equal(shape, inner) {
				return nil, repository.Errorf(codes.InvalidArgument, "%q is ragged: an array of shape %v stands beside one of %v", t.Name, shape, inner)
			}
		}
		_, err := d.ReadToken()
		return append([]int64{n}, inner...), err
	case '{':
		var encoded struct {
			B64 *string `json:"b64"`
		}
		if err := json.UnmarshalDecode(d, &encoded, json.RejectUnknownMembers(true)); err != nil || encoded.B64 == nil || t.Type != repository.Bytes {
			return nil, repository.Errorf(codes.InvalidArgument, `%q holds an object: only strings may be one, {"b64": "…"}`, t.Name)
		}
		b, err := base64.StdEncoding.DecodeString(*encoded.B64)
		if err != nil {
			return nil, repository.Errorf(codes.InvalidArgument, "%q holds what is no base64: %v", t.Name, err)
		}
		t.Strings = append(t.Strings, string(b))
		return nil, nil
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	return nil, readElement(t, token)
}

// writePrediction writes the outputs as the inputs came: in rows, or in columns. That of a model with
// one output has no name. It is put together by hand, for logits may be numbers that JSON has not.
func writePrediction(w http.ResponseWriter, m repository.Handle, outputs []repository.Tensor, rows bool) error {
	if m.Text {
		for i := range outputs {
			outputs[i].Shape = outputs[i].Shape[:1]
		}
	}
	var b []byte
	named := func(value func(*repository.Tensor)) {
		if len(outputs) == 1 {
			value(&outputs[0])
			return
		}
		b = append(b, '{')
		for i := range outputs {
			if i > 0 {
				b = append(b, ',')
			}
			b, _ = jsontext.AppendQuote(b, outputs[i].Name)
			b = append(b, ':')
			value(&outputs[i])
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
			named(func(t *repository.Tensor) { b = appendRow(b, t, row) })
		}
		b = append(b, "]}\n"...)
	} else {
		b = append(b, `{"outputs":`...)
		named(func(t *repository.Tensor) {
			b = append(b, '[')
			for row := range n {
				if row > 0 {
					b = append(b, ',')
				}
				b = appendRow(b, t, row)
			}
			b = append(b, ']')
		})
		b = append(b, "}\n"...)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client may have gone
	return nil
}

// appendRow writes one row of a vector, a number or string, or of a matrix, an array of them.
func appendRow(b []byte, t *repository.Tensor, row int) []byte {
	if len(t.Shape) == 1 {
		return appendElement(b, t, row)
	}
	width := int(t.Shape[1])
	b = append(b, '[')
	for i := row * width; i < (row+1)*width; i++ {
		if i > row*width {
			b = append(b, ',')
		}
		b = appendElement(b, t, i)
	}
	return append(b, ']')
}

func appendElement(b []byte, t *repository.Tensor, i int) []byte {
	switch {
	case t.Int32s != nil:
		return strconv.AppendInt(b, int64(t.Int32s[i]), 10)
	case t.Strings != nil:
		b, _ = jsontext.AppendQuote(b, t.Strings[i])
		return b
	}
	switch v := float64(t.Float32s[i]); {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "Infinity"...)
	case math.IsInf(v, -1):
		return append(b, "-Infinity"...)
	default:
		return strconv.AppendFloat(b, v, 'g', -1, 32)
	}
}
