// Package huggingface implements Hugging Face's question-answering task over HTTP.
package huggingface

import (
	"cmp"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// Handle adds the paths of the task on a server.
func Handle(host *transport.Host, handle transport.Handle) {
	answer := func(w http.ResponseWriter, r *http.Request) error { return answer(host, w, r) }
	handle("POST /{$}", answer)
	handle("POST /models/{model}", answer)
	handle("POST /pipeline/question-answering/{model}", answer)
}

// request is the body of a request.
type request struct {
	Inputs     jsontext.Value `json:"inputs"`
	Parameters struct {
		TopK             *int  `json:"top_k"`
		DocStride        int   `json:"doc_stride"`
		MaxAnswerLen     int   `json:"max_answer_len"`
		MaxSeqLen        int   `json:"max_seq_len"`
		MaxQuestionLen   int   `json:"max_question_len"`
		HandleImpossible *bool `json:"handle_impossible_answer"`
	} `json:"parameters"`
}

type input struct {
	Question string `json:"question"`
	Context  string `json:"context"`
}

// result is an answer. Its places count code points, as in the task.
type result struct {
	Score  float64 `json:"score"`
	Start  int     `json:"start"`
	End    int     `json:"end"`
	Answer string  `json:"answer"`
}

// answer writes one answer to one question, or a list of top_k answers if the request sets that. To a list
// of questions it writes a list of these, as the task's pipeline did.
func answer(host *transport.Host, w http.ResponseWriter, r *http.Request) error {
	var request request
	if err := host.ReadJSON(r, &request); err != nil {
		return err
	}
	inputs, many, err := request.inputs()
	if err != nil {
		return err
	}
	m, err := host.AcquireOrDefault(r.PathValue("model"), "")
	if err != nil {
		return err
	}
	defer m.Release()
	p := &request.Parameters
	topK := 1
	if p.TopK != nil {
		if topK = *p.TopK; topK < 1 {
			return repository.Invalidf("top_k is %d: it must be at least 1", topK)
		}
	}
	questions := make([]*repository.Question, len(inputs))
	for i, in := range inputs {
		q := &repository.Question{
			Text: in.Question, Documents: []string{in.Context},
			MaxSeqLength: p.MaxSeqLen, DocStride: p.DocStride, MaxQueryLength: p.MaxQuestionLen, Decoder: m.Decoder(),
		}
		q.Decoder.MaxAnswerLength = cmp.Or(p.MaxAnswerLen, q.Decoder.MaxAnswerLength)
		if p.HandleImpossible != nil {
			q.Decoder.WithNegative = *p.HandleImpossible
		}
		q.Decoder.NBestSize = max(topK, q.Decoder.NBestSize)
		questions[i] = q
	}
	answers, err := m.AnswerAll(r.Context(), questions)
	if err != nil {
		return err
	}
	results := make([]any, len(answers))
	for i, a := range answers {
		list := bestAnswers(a, topK)
		if results[i] = list; p.TopK == nil {
			results[i] = list[0]
		}
	}
	if len(answers) == 1 {
		transport.SetTiming(w, answers[0].Seconds)
	}
	if !many {
		return transport.WriteJSON(w, results[0])
	}
	return transport.WriteJSON(w, results)
}

// inputs returns the questions, and reports whether they came as a list.
func (r *request) inputs() (inputs transport.Bounded[input], many bool, err error) {
	switch {
	case len(r.Inputs) == 0:
		return nil, false, repository.Invalidf(`inputs are missing: send {"inputs":{"question":…,"context":…}}`)
	case r.Inputs.Kind() == '[':
		err = transport.DecodeJSON(r.Inputs, &inputs)
		return inputs, true, err
	}
	inputs = make(transport.Bounded[input], 1)
	err = transport.DecodeJSON(r.Inputs, &inputs[0])
	return inputs, false, err
}

// bestAnswers returns up to topK answers, the chosen one first. It returns an empty one if there are none.
func bestAnswers(a *repository.Answer, topK int) []result {
	list := []result{}
	add := func(i int) {
		c, p := &a.NBest[i], a.Places[i]
		list = append(list, result{c.Probability, p.Start, p.End, c.Text})
	}
	if a.Best >= 0 {
		add(a.Best)
	}
	for i := range a.NBest {
		if len(list) < topK && i != a.Best {
			add(i)
		}
	}
	if len(list) == 0 {
		list = append(list, result{})
	}
	return list
}
