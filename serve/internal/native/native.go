// Package native implements the server's own protocol, questions as JSON.
package native

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// Handle adds the verbs of a server.
func Handle(host *transport.Host, handle transport.Handle) {
	s := &service{host}
	handle("POST /v1/answer", s.answer)
	handle("GET /v1/models", s.models)
}

type service struct{ host *transport.Host }

// answersRequest is the body of /v1/answer. It either is a question or has several.
type answersRequest struct {
	answerRequest
	Requests transport.Bounded[answerRequest] `json:"requests"`
}

type answerRequest struct {
	Question  string                    `json:"question"`
	Context   *string                   `json:"context"`
	Documents transport.Bounded[string] `json:"documents"`

	Model   string `json:"model"`
	Version string `json:"version"`

	NBestSize              int      `json:"n_best_size"`
	MaxAnswerLength        int      `json:"max_answer_length"`
	MaxSeqLength           int      `json:"max_seq_length"`
	DocStride              int      `json:"doc_stride"`
	MaxQueryLength         int      `json:"max_query_length"`
	WithNegative           *bool    `json:"version_2_with_negative"`
	NullScoreDiffThreshold *float64 `json:"null_score_diff_threshold"`
	Priority               int      `json:"priority"`

	Stream bool `json:"stream"`
}

// answerResponse is the body of an answer.
type answerResponse struct {
	Answer      string          `json:"answer"`
	Probability float64         `json:"probability"`
	Start       *int            `json:"start"` // code points of the document; null for an answer without text
	End         *int            `json:"end"`
	Document    *int            `json:"document"`
	NullOdds    *float64        `json:"null_odds,omitempty"`
	Model       string          `json:"model"`
	Version     string          `json:"version"`
	NBest       []candidateJSON `json:"n_best"`
	Windows     []windowJSON    `json:"windows"`
	Done        *int            `json:"windows_done,omitempty"` // in a stream
	Seconds     secondsJSON     `json:"seconds"`
	Warning     string          `json:"warning,omitempty"`
}

type candidateJSON struct {
	Text        string  `json:"text"`
	Probability float64 `json:"probability"`
	StartLogit  float64 `json:"start_logit"`
	EndLogit    float64 `json:"end_logit"`
	Start       *int    `json:"start"`
	End         *int    `json:"end"`
	Document    *int    `json:"document"`
	Window      *int    `json:"window"` // of all documents
}

type windowJSON struct {
	Document int `json:"document"`
	Start    int `json:"start"`
	End      int `json:"end"`
}

type secondsJSON struct {
	Tokenize float64 `json:"tokenize"`
	Queue    float64 `json:"queue"`
	Compute  float64 `json:"compute"`
	Decode   float64 `json:"decode"`
	Total    float64 `json:"total"`
}

func newSeconds(s repository.Seconds) secondsJSON {
	return secondsJSON{s.Tokenize, s.Queue, s.Compute, s.Decode, s.Tokenize + s.Queue + s.Compute + s.Decode}
}

// modelJSON is a model in the list of /v1/models.
type modelJSON struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	State        string `json:"state"`
	MaxSeqLength int    `json:"max_seq_length"`
	WithNegative bool   `json:"version_2_with_negative"`
}

// models lists the models that are available.
func (s *service) models(w http.ResponseWriter, _ *http.Request) error {
	list := struct {
		Models []modelJSON `json:"models"`
	}{[]modelJSON{}}
	for _, m := range s.host.Models.Models() {
		list.Models = append(list.Models, modelJSON{
			Name: m.Name(), Version: strconv.FormatInt(m.Version(), 10), State: "AVAILABLE",
			MaxSeqLength: m.Backend().SeqLength, WithNegative: m.Decoder().WithNegative,
		})
		m.Release()
	}
	return transport.WriteJSON(w, list)
}

func (s *service) answer(w http.ResponseWriter, r *http.Request) error {
	var request answersRequest
	if err := s.host.ReadJSON(r, &request, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	switch {
	case len(request.Requests) == 0:
		return s.answerOne(w, r, &request.answerRequest)
	case request.Question != "" || request.Context != nil || request.Documents != nil || request.Stream:
		return repository.Invalidf("send one question, or requests with a question each, which cannot be a stream")
	}
	return s.answerMany(w, r, request.Requests)
}

// mostAtOnce is the number of questions of one request that are under way at once.
const mostAtOnce = 64

// answerMany answers several questions.
func (s *service) answerMany(w http.ResponseWriter, r *http.Request, requests []answerRequest) error {
	outcomes, err := s.answerAll(r, requests)
	if err != nil {
		return err
	}
	return transport.WriteJSON(w, struct {
		Responses []any `json:"responses"`
	}{outcomes})
}

// A part is one of several questions of a request.
type part struct {
	model    *repository.Servable
	question *repository.Question
	ctx      context.Context // with the admission of all questions to the model
	response *answerResponse
	err      error
}

// answerAll answers several questions, each with an answer or an error of its own. It returns an error if all failed.
func (s *service) answerAll(r *http.Request, requests []answerRequest) ([]any, error) {
	parts := make([]part, len(requests))
	byModel := map[*repository.Model][]*part{}
	for i := range parts {
		p := &parts[i]
		p.err = s.host.Part(r.Context(), r.Pattern, func(context.Context) (err error) {
			p.model, p.question, err = s.question(&requests[i])
			return err
		})
		if p.err == nil {
			defer p.model.Release()
			byModel[p.model.Model] = append(byModel[p.model.Model], p)
		}
	}
	for m, parts := range byModel {
		questions := make([]*repository.Question, len(parts))
		for i, p := range parts {
			questions[i] = p.question
		}
		ctx, end, err := m.Admit(r.Context(), questions)
		if err == nil {
			defer end()
		}
		for _, p := range parts {
			p.ctx, p.err = ctx, err
		}
	}
	var group errgroup.Group
	group.SetLimit(mostAtOnce)
	for i := range parts {
		if p := &parts[i]; p.err == nil {
			group.Go(func() error {
				p.err = s.host.Part(p.ctx, r.Pattern, p.answer)
				return nil
			})
		}
	}
	_ = group.Wait() // never fails
	outcomes := make([]any, len(parts))
	refused := 0
	for i := range parts {
		p := &parts[i]
		if outcomes[i] = p.response; p.err != nil {
			outcomes[i] = transport.ErrorJSON{Error: repository.AsError(p.err).Message}
			refused++
		}
	}
	if refused == len(parts) {
		return nil, parts[0].err
	}
	return outcomes, nil
}

// answer answers one of several questions.
func (p *part) answer(ctx context.Context) error {
	a, err := p.model.Answer(ctx, p.question)
	if err == nil {
		p.response = newAnswer(p.model, p.question, a)
	}
	return err
}

func (s *service) answerOne(w http.ResponseWriter, r *http.Request, request *answerRequest) error {
	m, q, err := s.question(request)
	if err != nil {
		return err
	}
	defer m.Release()
	if request.Stream {
		return s.streamAnswer(w, r, m, q)
	}
	a, err := m.Answer(r.Context(), q)
	if err != nil {
		return err
	}
	transport.SetTiming(w, a.Seconds)
	return transport.WriteJSON(w, newAnswer(m, q, a))
}

// streamAnswer writes a line of JSON after each batch of windows, with the answer so far.
func (s *service) streamAnswer(
	w http.ResponseWriter, r *http.Request, m *repository.Servable, q *repository.Question,
) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	begun := false
	send := func(a *repository.Answer) error {
		begun = true
		response := newAnswer(m, q, a)
		response.Done = &a.Done
		if err := transport.EncodeJSON(w, response); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	a, err := m.AnswerStream(r.Context(), q, streamStep, send)
	if err == nil {
		return send(a)
	}
	if begun { // too late for a status
		_ = transport.EncodeJSON(w, transport.ErrorJSON{Error: repository.AsError(err).Message})
	}
	return err
}

// streamStep is the number of windows from one line of a stream to the next.
const streamStep = 8

// question returns the model that a request names, and the request as a Question.
func (s *service) question(r *answerRequest) (*repository.Servable, *repository.Question, error) {
	documents := r.Documents
	switch {
	case r.Context != nil && r.Documents != nil:
		return nil, nil, repository.Invalidf("send a context or documents, not both")
	case r.Context != nil:
		documents = []string{*r.Context}
	}
	m, err := s.host.AcquireOrDefault(r.Model, r.Version)
	if err != nil {
		return nil, nil, err
	}
	q := &repository.Question{
		Text: r.Question, Documents: documents,
		MaxSeqLength: r.MaxSeqLength, DocStride: r.DocStride, MaxQueryLength: r.MaxQueryLength,
		Decoder: m.Decoder(), Priority: r.Priority,
	}
	q.Decoder.NBestSize = cmp.Or(r.NBestSize, q.Decoder.NBestSize)
	q.Decoder.MaxAnswerLength = cmp.Or(r.MaxAnswerLength, q.Decoder.MaxAnswerLength)
	if r.WithNegative != nil {
		q.Decoder.WithNegative = *r.WithNegative
	}
	if r.NullScoreDiffThreshold != nil {
		q.Decoder.NullScoreDiffThreshold = *r.NullScoreDiffThreshold
	}
	return m, q, nil
}

func newAnswer(m *repository.Servable, q *repository.Question, a *repository.Answer) *answerResponse {
	response := &answerResponse{
		Answer: a.Prediction.Answer, Model: m.Model.Name(), Version: strconv.FormatInt(m.Version(), 10),
		Windows: []windowJSON{}, Seconds: newSeconds(a.Seconds), Warning: clientWarning(a.Warning),
	}
	if q.Decoder.WithNegative {
		response.NullOdds = &a.NullOdds
	}
	first := map[int]int{} // window of each document
	for i, w := range a.Windows {
		response.Windows = append(response.Windows, windowJSON(w))
		if _, ok := first[w.Document]; !ok {
			first[w.Document] = i
		}
	}
	for i, c := range a.NBest {
		candidate := candidateJSON{
			Text: c.Text, Probability: c.Probability, StartLogit: c.StartLogit, EndLogit: c.EndLogit,
		}
		if p := a.Places[i]; p.OK {
			window := first[p.Document] + c.Window
			candidate.Start, candidate.End, candidate.Document, candidate.Window = &p.Start, &p.End, &p.Document, &window
		}
		response.NBest = append(response.NBest, candidate)
	}
	if a.Best >= 0 {
		best := response.NBest[a.Best]
		response.Probability = best.Probability
		response.Start, response.End, response.Document = best.Start, best.End, best.Document
	}
	return response
}

// clientWarning returns a warning without its part about the reference scripts, which stands behind a colon.
func clientWarning(w string) string {
	message, _, _ := strings.Cut(w, ":")
	return message
}
