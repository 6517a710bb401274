package oip

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// generateJSON is the body of Triton's generate and generate_stream: the inputs by their names, each a value or an
// array of one.
type generateJSON struct {
	ID         string         `json:"id"`
	Question   textJSON       `json:"QUESTION"`
	Context    textJSON       `json:"CONTEXT"`
	Parameters jsontext.Value `json:"parameters"` // those that are not known are for other models
}

type textJSON string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *textJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '[' {
		return json.UnmarshalDecode(d, (*string)(t))
	}
	var list transport.Bounded[string]
	if err := json.UnmarshalDecode(d, &list); err != nil {
		return err
	}
	if len(list) != 1 {
		return repository.Invalidf("an input has %d elements: it must have one", len(list))
	}
	*t = textJSON(list[0])
	return nil
}

// generatedJSON is a response: the outputs by their names.
type generatedJSON struct {
	ID      string  `json:"id,omitempty"`
	Model   string  `json:"model_name"`
	Version string  `json:"model_version"`
	Answer  string  `json:"ANSWER"`
	Score   float32 `json:"SCORE"`
	Start   int     `json:"START"`
	End     int     `json:"END"`
}

func newGenerated(m *repository.Servable, id string, a *repository.Answer) *generatedJSON {
	g := &generatedJSON{
		ID: id, Model: m.Name(), Version: strconv.FormatInt(m.Version(), 10), Answer: a.Prediction.Answer,
		Start: -1, End: -1,
	}
	if a.Best >= 0 {
		g.Score = float32(a.NBest[a.Best].Probability)
		if p := a.Places[a.Best]; p.OK {
			g.Start, g.End = p.Start, p.End
		}
	}
	return g
}

// asked returns the text model of a path and its request's question. The model is to be released.
func (s *Service) asked(r *http.Request) (*repository.Servable, *generateJSON, *repository.Question, error) {
	m, err := s.host.Acquire(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, nil, nil, err
	}
	text := m.Servables()[1]
	if m != text {
		m.Release()
		return nil, nil, nil, repository.Errorf(codes.Unimplemented,
			"model %q takes word pieces, which are not generated from: ask %q", m.Name(), text.Name())
	}
	var request generateJSON
	var parameters parametersJSON
	err = s.host.ReadJSON(r, &request, json.RejectUnknownMembers(true))
	if err == nil && request.Parameters != nil {
		err = transport.DecodeJSON(request.Parameters, &parameters)
	}
	if err != nil {
		m.Release()
		return nil, nil, nil, err
	}
	q := &repository.Question{
		Text: string(request.Question), Documents: []string{string(request.Context)}, Decoder: m.Decoder(),
	}
	q.Priority, q.Timeout = queueOf(parameters.Priority, parameters.Timeout)
	return m, &request, q, nil
}

// generate answers with one response.
func (s *Service) generate(w http.ResponseWriter, r *http.Request) error {
	m, request, q, err := s.asked(r)
	if err != nil {
		return err
	}
	defer m.Release()
	a, err := m.Answer(r.Context(), q)
	if err != nil {
		return err
	}
	transport.SetTiming(w, a.Seconds)
	return transport.WriteJSON(w, newGenerated(m, request.ID, a))
}

// streamStep is the number of windows from one event of a stream to the next.
const streamStep = 8

// generateStream answers with server-sent events: the best answer so far after every streamStep windows, and last the
// answer.
func (s *Service) generateStream(w http.ResponseWriter, r *http.Request) error {
	m, request, q, err := s.asked(r)
	if err != nil {
		return err
	}
	defer m.Release()
	begun := false
	event := func(v any) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
		}
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := w.Write([]byte("data: " + string(data) + "\n\n")); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	send := func(a *repository.Answer) error { return event(newGenerated(m, request.ID, a)) }
	a, err := m.AnswerStream(r.Context(), q, streamStep, send)
	if err == nil {
		return send(a)
	}
	if begun { // too late for a status
		_ = event(transport.ErrorJSON{Error: repository.AsError(err).Message})
	}
	return err
}
