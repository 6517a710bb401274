package native

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfbert/go/serve/internal/transport"
)

// instancesRequest is a body in the form of Vertex AI.
type instancesRequest struct {
	Instances  transport.Bounded[jsontext.Value] `json:"instances"`
	Parameters jsontext.Value                    `json:"parameters"`
}

// Instances answers questions in the form of Vertex AI: instances, each of which is a question, and parameters, which
// hold where an instance does not have a key itself. The response has a prediction for each, an answer or an error.
func Instances(host *transport.Host, w http.ResponseWriter, r *http.Request) error {
	s := &service{host}
	var body instancesRequest
	if err := host.ReadJSON(r, &body, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	requests := make([]answerRequest, len(body.Instances))
	var parameters answerRequest
	if body.Parameters != nil && body.Parameters.Kind() != 'n' {
		if err := transport.DecodeJSON(body.Parameters, &parameters, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
	}
	for i, instance := range body.Instances {
		requests[i] = parameters.clone()
		if err := transport.DecodeJSON(instance, &requests[i], json.RejectUnknownMembers(true)); err != nil {
			return err
		}
	}
	predictions, err := s.answerAll(r, requests)
	if err != nil {
		return err
	}
	return transport.WriteJSON(w, struct {
		Predictions []any `json:"predictions"`
	}{predictions})
}

// clone returns a copy that shares nothing that decoding changes.
func (r answerRequest) clone() answerRequest {
	r.Context = cloneOf(r.Context)
	r.WithNegative = cloneOf(r.WithNegative)
	r.NullScoreDiffThreshold = cloneOf(r.NullScoreDiffThreshold)
	return r
}

func cloneOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
