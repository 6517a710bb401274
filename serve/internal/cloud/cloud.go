// Package cloud has the verbs that SageMaker and Vertex AI ask of a container, GET /ping and POST /invocations. A
// request may have the form of any other protocol; its content says which.
package cloud

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfbert/go/serve/internal/native"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// Patterns of the verbs.
const (
	Health  = "GET /ping"
	Predict = "POST /invocations"
)

// Handle adds the verbs of a server. The handlers are those of the other protocols by their patterns.
func Handle(host *transport.Host, handle transport.Handle, handlers map[string]transport.Handler) {
	s := &service{host, handlers}
	handle(Health, func(w http.ResponseWriter, _ *http.Request) error {
		if err := host.Ready(); err != nil {
			return err
		}
		return transport.WriteJSON(w, struct{}{})
	})
	handle(Predict, s.predict)
}

// Routes returns a handler that takes two more paths, which stand for those of Health and Predict, or h itself if both
// are "". They go before all other paths.
func Routes(h http.Handler, health, predict string) http.Handler {
	routes := map[string]string{}
	add := func(path, pattern string) {
		if path != "" {
			method, to, _ := strings.Cut(pattern, " ")
			routes[method+" "+path] = to
		}
	}
	add(health, Health)
	add(predict, Predict)
	if len(routes) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to, ok := routes[r.Method+" "+r.URL.Path]; ok {
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = to, ""
		}
		h.ServeHTTP(w, r)
	})
}

type service struct {
	host     *transport.Host
	handlers map[string]transport.Handler
}

// A form is that of a request.
type form int

const (
	answer    form = iota // a question of the server's own protocol, or several
	questions             // such questions as Vertex AI's instances
	task                  // Hugging Face's task
	rows                  // TensorFlow Serving's predict, for a model
	textRows              // the same, for a text model
)

// predict answers a request in its form.
func (s *service) predict(w http.ResponseWriter, r *http.Request) error {
	body, err := s.host.ReadBody(r)
	if err != nil {
		return err
	}
	if body, err = oneValue(r, body); err != nil {
		return err
	}
	f := formOf(body)
	transport.SetBody(r, body)
	switch f {
	case questions:
		return native.Instances(s.host, w, r)
	case task:
		return s.handlers["POST /{$}"](w, r)
	case rows, textRows:
		return s.predictRows(w, r, f)
	}
	return s.handlers["POST /v1/answer"](w, r)
}

// oneValue returns a body as one JSON object. An array, and the values of JSON lines, which may stand on one line too,
// are instances.
func oneValue(r *http.Request, body []byte) ([]byte, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	first := d.PeekKind()
	if d.SkipValue() != nil {
		return body, nil // the handler says what is wrong with it
	}
	lines := d.PeekKind() != 0
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil {
		lines = lines || media == "application/jsonlines" || media == "application/jsons"
	}
	const begin, end = `{"instances":`, `}`
	switch {
	case first == '[' && !lines:
		return append(append([]byte(begin), body...), end...), nil
	case !lines:
		return body, nil
	}
	d = jsontext.NewDecoder(bytes.NewBuffer(body))
	all := append(make([]byte, 0, len(body)+len(begin)+64), begin+"["...)
	for n := 0; ; n++ {
		value, err := d.ReadValue()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, repository.Invalidf("line %d of the request is not JSON", n+1)
		}
		if n > 0 {
			all = append(all, ',')
		}
		all = append(all, value...)
	}
	return append(all, "]"+end...), nil
}

// formOf returns the form of a request, by its keys and those of its first instance.
func formOf(body []byte) form {
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	if d.PeekKind() != '{' {
		return answer // whose handler refuses it
	}
	_, _ = d.ReadToken()
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return answer
		}
		switch name := key.String(); name {
		case "instances", "inputs":
			return formOfRows(d, name)
		}
		if d.SkipValue() != nil {
			return answer
		}
	}
	return answer
}

// formOfRows returns the form of a request by what d reads next, the value of a key.
func formOfRows(d *jsontext.Decoder, name string) form {
	if d.PeekKind() == '[' {
		_, _ = d.ReadToken()
	}
	if d.PeekKind() != '{' {
		return rows
	}
	_, _ = d.ReadToken()
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return rows
		}
		switch key.String() {
		case "question", "context", "documents":
			if name == "inputs" {
				return task
			}
			return questions
		case "QUESTION", "CONTEXT":
			return textRows
		}
		if d.SkipValue() != nil {
			return rows
		}
	}
	return rows
}

// attributes is the header by which SageMaker's clients name a model, its version and a verb.
const attributes = "X-Amzn-SageMaker-Custom-Attributes"

// predictRows answers TensorFlow Serving's predict by the model that a request names, or else by the only one.
func (s *service) predictRows(w http.ResponseWriter, r *http.Request, f form) error {
	named := map[string]string{"tfs-method": "predict"}
	for part := range strings.SplitSeq(r.Header.Get(attributes), ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		named[key] = value
	}
	name := named["tfs-model-name"]
	if name == "" {
		m, err := s.host.AcquireOrDefault("", "")
		if err != nil {
			return err
		}
		servables := m.Servables() // the model and its text model
		m.Release()
		if name = servables[0].Name(); f == textRows {
			name = servables[1].Name()
		}
	}
	// As in TensorFlow Serving's paths, the verb stands behind the last segment.
	pattern := "POST /v1/models/{model}"
	if version := named["tfs-model-version"]; version != "" {
		pattern += "/versions/{version}"
		r.SetPathValue("version", version+":"+named["tfs-method"])
	} else {
		name += ":" + named["tfs-method"]
	}
	r.SetPathValue("model", name)
	return s.handlers[pattern](w, r)
}
