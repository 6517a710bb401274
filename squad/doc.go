// Package squad answers questions the way the TF1 BERT SQuAD scripts do: from a data set to
// examples, features, logits, n-best answers and prediction files, byte for byte.
package squad
