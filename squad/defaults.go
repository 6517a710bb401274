package squad

// Defaults of the reference scripts. A zero field of a [Featurizer] or a [Decoder] stands for them.
const (
	DefaultMaxSeqLength    = 384 // tokens of a feature
	DefaultDocStride       = 128 // word pieces from one window to the next
	DefaultMaxQueryLength  = 64  // word pieces of a question that are kept
	DefaultNBestSize       = 20  // answers that are ranked
	DefaultMaxAnswerLength = 30  // word pieces of an answer
)
