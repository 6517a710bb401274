package serve

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// answersRequest is the body of /v1/answer. Either it is a question or it has several.
type answersRequest struct {
	answerRequest
	Requests bounded[answerRequest] `json:"requests"`
}

type answerRequest struct {
	Question  string   `json:"question"`
	Context   *string  `json:"context"`
	Documents []string `json:"documents"`

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

// answerResponse is the body of its answer.
type answerResponse struct {
	Answer      string          `json:"answer"`
	Probability float64         `json:"probability"`
	Start       *int            `json:"start"` // code points of the document; null where there is no text
	End         *int            `json:"end"`
	Document    *int            `json:"document"`
	NullOdds    *float64        `json:"null_odds,omitempty"`
	Model       string          `json:"model"`
	Version     string          `json:"version"`
	NBest       []candidateJSON `json:"n_best"`
	Windows     []windowJSON    `json:"windows"`
	Done        *int            `json:"windows_done,omitempty"` // of a stream
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

func (s *Server) handleAnswers(handle func(string, handler)) {
	handle("POST /v1/answer", s.answer)
	handle("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) error {
		list := struct {
			Models []modelJSON `json:"models"`
		}{[]modelJSON{}}
		for _, m := range s.models.Models() {
			list.Models = append(list.Models, modelJSON{
				m.Name(), strconv.FormatInt(m.Version(), 10), repository.Available.String(), m.Backend().SeqLength, m.Decoder().WithNegative,
			})
			m.Release()
		}
		return writeJSON(w, list)
	})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) error {
	var request answersRequest
	if err := s.readJSON(r, &request, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	switch {
	case len(request.Requests) == 0:
		return s.answerOne(w, r, &request.answerRequest)
	case request.Question != "" || request.Context != nil || request.Documents != nil || request.Stream:
		return repository.Errorf(codes.InvalidArgument, "send one question, or requests with a question each, and no stream of those")
	}
	return s.answerMany(w, r, request.Requests)
}

// answerMany answers questions at once; each has an answer or an error of its own.
func (s *Server) answerMany(w http.ResponseWriter, r *http.Request, requests []answerRequest) error {
	outcomes := make([]any, len(requests))
	refused := 0
	var first error
	var mu sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, 64) // of one client's, so that it does not fill the queue alone
	for i := range requests {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			began := time.Now()
			var a *answerResponse
			err := recovering(func() (err error) {
				a, err = s.ask(r, &requests[i])
				return err
			})
			if outcomes[i] = a; err != nil {
				outcomes[i] = errorJSON{repository.AsError(err).Message}
				s.logRequest(r.Context(), "http", r.Pattern, "one of several", began, err)
				mu.Lock()
				defer mu.Unlock()
				refused++
				first = err
			}
		})
	}
	group.Wait()
	if refused == len(requests) {
		return first
	}
	return writeJSON(w, struct {
		Responses []any `json:"responses"`
	}{outcomes})
}

// ask answers one of several questions.
func (s *Server) ask(r *http.Request, request *answerRequest) (*answerResponse, error) {
	m, q, err := s.question(request)
	if err != nil {
		return nil, err
	}
	defer m.Release()
	a, err := m.Answer(r.Context(), q)
	if err != nil {
		return nil, err
	}
	return newAnswer(m, q, a), nil
}

func (s *Server) answerOne(w http.ResponseWriter, r *http.Request, request *answerRequest) error {
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
	setTiming(w, a.Seconds)
	return writeJSON(w, newAnswer(m, q, a))
}

// streamAnswer writes a line of JSON after each batch of windows, with the answer so far.
func (s *Server) streamAnswer(w http.ResponseWriter, r *http.Request, m repository.Handle, q *repository.Question) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	begun := false
	send := func(a *repository.Answer) error {
		begun = true
		response := newAnswer(m, q, a)
		response.Done = &a.Done
		if err := encodeJSON(w, response); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	a, err := m.AnswerStream(r.Context(), q, streamStep, send)
	if err == nil {
		return send(a)
	}
	if begun { // too late for a status
		_ = encodeJSON(w, errorJSON{repository.AsError(err).Message})
	}
	return err
}

// streamStep is the number of windows from one line of a stream to the next.
const streamStep = 8

// question finds the model that a request names and puts the request in the repository's terms.
func (s *Server) question(r *answerRequest) (repository.Handle, *repository.Question, error) {
	none := repository.Handle{}
	documents := r.Documents
	switch {
	case r.Context != nil && r.Documents != nil:
		return none, nil, repository.Errorf(codes.InvalidArgument, "send a context or documents, not both")
	case r.Context != nil:
		documents = []string{*r.Context}
	}
	m, err := s.acquire(r.Model, r.Version)
	if err != nil {
		return none, nil, err
	}
	q := &repository.Question{
		Text: r.Question, Documents: documents,
		MaxSeqLength: r.MaxSeqLength, DocStride: r.DocStride, MaxQueryLength: r.MaxQueryLength,
		Decoder: m.Decoder(), Priority: r.Priority,
	}
	setDecoder(&q.Decoder, r.NBestSize, r.MaxAnswerLength, r.WithNegative, r.NullScoreDiffThreshold)
	return m, q, nil
}

// setDecoder changes what a request sets.
func setDecoder(d *squad.Decoder, nBestSize, maxAnswerLength int, withNegative *bool, threshold *float64) {
	if nBestSize != 0 {
		d.NBestSize = nBestSize
	}
	if maxAnswerLength != 0 {
		d.MaxAnswerLength = maxAnswerLength
	}
	if withNegative != nil {
		d.WithNegative = *withNegative
	}
	if threshold != nil {
		d.NullScoreDiffThreshold = *threshold
	}
}

// acquire finds a model by the name and version of a request, each of which may be "".
func (s *Server) acquire(name, version string) (repository.Handle, error) {
	var number int64
	if version != "" {
		var err error
		if number, err = strconv.ParseInt(version, 10, 64); err != nil || number < 1 {
			return repository.Handle{}, repository.Errorf(codes.InvalidArgument, "the version is %q: it must be a number such as 1", version)
		}
	}
	if name == "" {
		var err error
		if name, err = s.models.Default(); err != nil {
			return repository.Handle{}, err
		}
	}
	return s.models.Acquire(name, number)
}

func newAnswer(m repository.Handle, q *repository.Question, a *repository.Answer) *answerResponse {
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
		candidate := candidateJSON{Text: c.Text, Probability: c.Probability, StartLogit: c.StartLogit, EndLogit: c.EndLogit}
		if p := a.Places[i]; p.OK {
			window := first[p.Document] + c.Window
			candidate.Start, candidate.End, candidate.Document, candidate.Window = &p.Start, &p.End, &p.Document, &window
		}
		response.NBest = append(response.NBest, candidate)
	}
	if a.Best >= 0 {
		best := response.NBest[a.Best]
		response.Probability, response.Start, response.End, response.Document = best.Probability, best.Start, best.End, best.Document
	}
	return response
}

// clientWarning leaves out what a warning says of the reference scripts.
func clientWarning(w string) string {
	message, _, _ := strings.Cut(w, ":")
	return message
}

// setTiming tells the times of the stages, in milliseconds, as browsers show them.
func setTiming(w http.ResponseWriter, s repository.Seconds) {
	w.Header().Set("Server-Timing", fmt.Sprintf("tokenize;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, decode;dur=%.3f",
		1e3*s.Tokenize, 1e3*s.Queue, 1e3*s.Compute, 1e3*s.Decode))
}
