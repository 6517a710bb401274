// Package tfbert runs NVIDIA's and Google's TF1 BERT checkpoints for question answering.
//
// [Export] turns a checkpoint into a SavedModel, without Python. [Open] loads one as a squad.Predictor.
// Package squad does what comes before and after the model: tokens, windows, n-best answers, prediction
// files and scores.
//
//	_, err := tfbert.Export(ctx, "bert_tf_ckpt_base_qa_squad11_amp_128.zip", "model", nil)
//	...
//	m, err := tfbert.Open("model", nil)
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	p, err := m.Answerer().Answer(ctx, "Who wrote it?", "It was written by Ada Lovelace.")
//	fmt.Println(p.Answer)
package tfbert
