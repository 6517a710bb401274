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
// Each stage stands alone. [Examples] reads questions, [Featurizer] turns each into features, the
// windows over its passage that fit the model; a [Predictor] makes logits of features; [Decoder]
// finds answers in the logits; [Files] and the Write functions write them; the Read functions read
// them back. Sequences hold a paragraph or a bounded number of windows at a time, so memory does not
// grow with the file but for a hash of each question's id, which finds repeated ids. [Answerer] runs
// all stages and, with the model as the slow one, keeps it supplied with full batches, on demand of
// windows of like length.
//
// The package does not run a model, load weights or draw; it needs no TensorFlow and no cgo. It does
// not train: a question's answers are read for evaluation alone.
//
// It differs from the scripts where they crash or lose data: what is no data set to us (a repeated
// question id, say, or a lone surrogate) and logits that have no order are errors, and with negatives
// a passage without a valid answer gets the answer "" and a [Prediction.Warning]. docs/parity.md
// lists every difference.
//
// Featurizer, Decoder and Answerer are plain settings. They may be used from several goroutines at
// once, an Answerer if its Predictor may; a sequence and [Files] belong to one goroutine at a time.
// Errors are one line each and name the question or the place in the file; the caller adds the
// file's name.
package squad
