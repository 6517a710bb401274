package serve

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// huggingFaceRequest is the body of Hugging Face's question-answering task.
type huggingFaceRequest struct {
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

type huggingFaceInput struct {
	Question string `json:"question"`
	Context  string `json:"context"`
}

// huggingFaceAnswer counts places in code points, as the task does.
type huggingFaceAnswer struct {
	Score  float64 `json:"score"`
	Start  int     `json:"start"`
	End    int     `json:"end"`
	Answer string  `json:"answer"`
}

func (s *Server) handleHuggingFace(handle func(string, handler)) {
	handle("POST /{$}", s.huggingFace)
	handle("POST /models/{model}", s.huggingFace)
	handle("POST /pipeline/question-answering/{model}", s.huggingFace)
}

// huggingFace answers one question with one answer, or with a list of top_k answers where the request
// sets it, and a list of questions with a list of such, as the task's pipeline did.
func (s *Server) huggingFace(w http.ResponseWriter, r *http.Request) error {
	var request huggingFaceRequest
	if err := s.readJSON(r, &request); err != nil {
		return err
	}
	var inputs bounded[huggingFaceInput]
	many := request.Inputs.Kind() == '['
	if many {
		if err := decodeJSON(request.Inputs, &inputs); err != nil {
			return err
		}
	} else {
		inputs = make(bounded[huggingFaceInput], 1)
		if len(request.Inputs) == 0 {
			return repository.Errorf(codes.InvalidArgument, "inputs are missing: send {\"inputs\":{\"question\":…,\"context\":…}}")
		}
		if err := decodeJSON(request.Inputs, &inputs[0]); err != nil {
			return err
		}
	}
	m, err := s.acquire(r.PathValue("model"), "")
	if err != nil {
		return err
	}
	defer m.Release()
	p := &request.Parameters
	topK := 1
	if p.TopK != nil {
		if topK = *p.TopK; topK < 1 {
			return repository.Errorf(codes.InvalidArgument, "top_k is %d: it must be at least 1", topK)
		}
	}
	questions := make([]*repository.Question, len(inputs))
	for i, in := range inputs {
		q := &repository.Question{
			Text: in.Question, Documents: []string{in.Context},
			MaxSeqLength: p.MaxSeqLen, DocStride: p.DocStride, MaxQueryLength: p.MaxQuestionLen, Decoder: m.Decoder(),
		}
		setDecoder(&q.Decoder, 0, p.MaxAnswerLen, p.HandleImpossible, nil)
		q.Decoder.NBestSize = max(topK, q.Decoder.NBestSize)
		questions[i] = q
	}
	answers, err := m.AnswerAll(r.Context(), questions)
	if err != nil {
		return err
	}
	results := make([]any, len(answers))
	for i, a := range answers {
		list := huggingFaceAnswers(a, topK)
		if results[i] = list; p.TopK == nil {
			results[i] = list[0]
		}
	}
	if len(answers) == 1 {
		setTiming(w, answers[0].Seconds)
	}
	if !many {
		return writeJSON(w, results[0])
	}
	return writeJSON(w, results)
}

// huggingFaceAnswers lists the best answers, that which was chosen first.
func huggingFaceAnswers(a *repository.Answer, topK int) []huggingFaceAnswer {
	list := []huggingFaceAnswer{}
	add := func(i int) {
		c, p := &a.NBest[i], a.Places[i]
		list = append(list, huggingFaceAnswer{c.Probability, p.Start, p.End, c.Text})
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
		list = append(list, huggingFaceAnswer{})
	}
	return list
}
