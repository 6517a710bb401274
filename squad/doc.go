// Package squad answers questions about passages the way the TF1 BERT SQuAD scripts do: from a data
// set to examples, features, logits, n-best answers and prediction files, byte for byte the files of
// NVIDIA's and Google's run_squad.py from the same logits. It evaluates them like the official
// scripts, too.
//
//	in, err := os.Open("dev-v1.1.json")
//	...
//	answerer := &squad.Answerer{
//		Featurizer: squad.Featurizer{Tokenizer: tokenizer}, // 384/128/64, as in the scripts
//		Predictor:  model,                                  // TensorFlow, a server, a fake
//	}
//	for p, err := range answerer.AnswerAll(ctx, squad.Examples(in)) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(p.ID, p.Answer, p.NBest[0].Probability)
//	}
//
// Each stage can be used alone. [Examples] reads questions. A [Featurizer] turns each question into
// features, the windows over its passage that fit the model. A [Predictor] makes logits of features. A
// [Decoder] finds answers in the logits. [Files] writes the answers, and the Read functions read them
// back. An [Answerer] runs all stages and keeps the model supplied with full batches.
//
// Sequences hold one paragraph or a bounded number of windows at a time. Memory grows with the file
// only by a hash of each question's id, which finds repeated ids.
//
// The package does not run a model, load weights or draw. It needs neither TensorFlow nor cgo. It does
// not train: it reads a question's reference answers only to evaluate.
//
// It differs from the scripts where they crash or lose data. A repeated question id, a lone surrogate
// and a logit without an order are errors. With negatives, a passage without a valid answer gets the
// answer "" and a Warning in its [Prediction]. docs/parity.md lists every difference.
//
// Featurizer, Decoder and Answerer are plain settings that several goroutines may use at once, an
// Answerer only if its Predictor allows it. A sequence and [Files] belong to one goroutine at a time.
// Errors are one line each and name the question or the place in the file. The caller adds the name
// of the file.
package squad
