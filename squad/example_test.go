package squad_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// lastWord is a model that believes the answer to be the last word piece of a passage.
type lastWord struct{}

func (lastWord) Predict(_ context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	results := make([]squad.RawResult, len(features))
	for i, f := range features {
		logits := make([]float32, len(f.InputIDs))
		logits[f.Len-2] = 5 // before the last [SEP]
		results[i] = squad.RawResult{UniqueID: f.UniqueID, StartLogits: logits, EndLogits: logits}
	}
	return results, nil
}

// tokenizer has a vocabulary that is just large enough.
func tokenizer() *wordpiece.Tokenizer {
	vocab, err := wordpiece.ReadVocab(strings.NewReader(
		"[PAD]\n[UNK]\n[CLS]\n[SEP]\nwho\nmoved\nthe\nsi\n##lt\nto\nport\nellery\n?\n."))
	if err != nil {
		log.Fatal(err)
	}
	return &wordpiece.Tokenizer{Vocab: vocab}
}

func Example() {
	answerer := &squad.Answerer{
		Featurizer: squad.Featurizer{Tokenizer: tokenizer()},
		Predictor:  lastWord{}, // with a model: tfbert.Open
	}
	p, err := answerer.Answer(context.Background(), "Who moved the silt?", "To Port Ellery")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Answer)
	for _, c := range p.NBest[:2] {
		fmt.Printf("%.3f %q, words %d to %d\n", c.Probability, c.Text, c.StartWord, c.EndWord)
	}
	// Output:
	// Ellery
	// 0.987 "Ellery", words 2 to 2
	// 0.007 "To Port Ellery", words 0 to 2
}

func ExampleAnswerer_AnswerAll() {
	file := strings.NewReader(`{"data": [{"paragraphs": [{
		"context": "To Port Ellery",
		"qas": [{"id": "q1", "question": "Who moved the silt?"}, {"id": "q2", "question": "Who?"}]
	}]}]}`)
	answerer := &squad.Answerer{
		Featurizer: squad.Featurizer{Tokenizer: tokenizer()},
		Predictor:  lastWord{},
	}
	dir, err := os.MkdirTemp("", "squad")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	files, err := squad.CreateFiles(dir, false)
	if err != nil {
		log.Fatal(err)
	}
	defer files.Abort()
	for p, err := range answerer.AnswerAll(context.Background(), squad.Examples(file)) {
		if err != nil {
			log.Fatal(err)
		}
		if err := files.Write(&p); err != nil {
			log.Fatal(err)
		}
	}
	if err := files.Commit(); err != nil {
		log.Fatal(err)
	}
	text, _ := os.ReadFile(dir + "/" + squad.PredictionsFile)
	fmt.Printf("%s", text)
	// Output:
	// {
	//     "q1": "Ellery",
	//     "q2": "Ellery"
	// }
}

func ExampleFeaturizer_Features() {
	featurizer := &squad.Featurizer{Tokenizer: tokenizer(), MaxSeqLength: 12, MaxQueryLength: 4, DocStride: 2}
	example := &squad.Example{Question: "Who moved the silt?", Words: squad.Words("To Port Ellery.")}
	examples := func(yield func(*squad.Example, error) bool) { yield(example, nil) }
	for f, err := range featurizer.Features(examples) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(f.UniqueID, strings.Join(f.Tokens(), " "))
	}
	// Output:
	// 1000000000 [CLS] who moved the si [SEP] to port ellery . [SEP]
}

func ExampleReadDataset() {
	d, err := squad.ReadDataset(strings.NewReader(`{"data": [{"title": "Dogs", "paragraphs": [{"context": "x"}]}]}`))
	fmt.Println(d, err)
	// Output:
	// <nil> read data set: article 1 ("Dogs"), paragraph 1: the paragraph has no "qas" (line 1, byte 59)
}
